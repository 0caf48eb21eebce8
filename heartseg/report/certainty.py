"""The model card's section on how sure a model is, and whether that can be trusted."""

from __future__ import annotations

from typing import Any

from heartseg.config.nested import get
from heartseg.metrics.calibration import BINS
from heartseg.report.markdown import number, table


def certainty_section(metrics: dict[str, Any]) -> str:
    """Calibration, uncertainty against Dice, and how the views were chosen; Markdown.

    Args:
        metrics: report.json; what is missing is left out.
    """
    parts = ["## Certainty"]
    if calibration := metrics.get("calibration"):
        rows = [
            ("predicted label" if key == "ece" else key.removeprefix("ece_"), number(value, 4))
            for key, value in calibration.items()
            if key.startswith("ece")
        ]
        parts.append(
            "Of the class probabilities, in a box around the heart of each held-out image "
            f"({number(calibration['n'])} pixels, {BINS} bins; figures/calibration.png):\n\n"
            + table(("probability of", "expected calibration error (0 to 1)"), rows)
        )
    if uncertainty := metrics.get("uncertainty"):
        parts.append(
            "Uncertainty of a case (cases.csv), the mean normalised entropy (0 to 1) of the pixels "
            "predicted as heart: mean "
            f"{number(uncertainty['mean'], 3)}, greatest {number(uncertainty['max'], 3)}. Its rank "
            "correlation with the case's mean Dice (Spearman, -1 to 1; negative where unsure cases "
            f"are the worse ones): {number(uncertainty['spearman_dice'], 2)}, "
            f"n = {number(uncertainty['n'])} images."
        )
    dice = get(metrics, "tta", "val_dice")
    if dice:
        taken = "taken" if get(metrics, "tta", "chosen") == "views" else "not taken"
        parts.append(
            f"Test-time augmentation was {taken}: mean Dice (0 to 1) {number(dice['none'], 4)} "
            f"without and {number(dice['views'], 4)} with it ({metrics['tta']['chosen_on']} "
            "patients)."
        )
    return "\n\n".join(parts) if len(parts) > 1 else ""
