"""The model card's section on calibration, uncertainty and test-time augmentation."""

from __future__ import annotations

from typing import Any

from heartseg.config.nested import get
from heartseg.metrics.calibration import BINS
from heartseg.report.markdown import number, table


def certainty_section(metrics: dict[str, Any]) -> str:
    """Return the section as Markdown; "" without any of its values.

    Args:
        metrics: Content of report.json. Parts whose values are missing are left out.
    """
    parts = ["## Certainty"]
    if calibration := metrics.get("calibration"):
        rows = [
            ("predicted label" if key == "ece" else key.removeprefix("ece_"), number(value, 4))
            for key, value in calibration.items()
            if key.startswith("ece")
        ]
        parts.append(
            "Calibration of the class probabilities, in a box around the heart of each image "
            f"({number(calibration['n'])} pixels, {BINS} bins; figures/calibration.png):\n\n"
            + table(("probability of", "expected calibration error (0 to 1)"), rows)
        )
    if uncertainty := metrics.get("uncertainty"):
        parts.append(
            "Uncertainty of a case (cases.csv) is the mean normalised entropy (0 to 1) of the "
            "pixels predicted to be heart: mean "
            f"{number(uncertainty['mean'], 3)}, maximum {number(uncertainty['max'], 3)}. Its rank "
            "correlation with the case's mean Dice (Spearman, -1 to 1; negative if uncertain cases "
            f"have lower Dice): {number(uncertainty['spearman_dice'], 2)}, "
            f"n = {number(uncertainty['n'])} images."
        )
    dice = get(metrics, "tta", "val_dice")
    if dice:
        selected = "selected" if get(metrics, "tta", "chosen") == "views" else "not selected"
        parts.append(
            f"Test-time augmentation was {selected}: mean Dice (0 to 1) {number(dice['none'], 4)} "
            f"without and {number(dice['views'], 4)} with it ({metrics['tta']['chosen_on']} "
            "patients)."
        )
    return "\n\n".join(parts) if len(parts) > 1 else ""
