"""The model card's section on clinical agreement and anatomical plausibility (CAMUS)."""

from __future__ import annotations

from typing import Any

from heartseg.config.nested import get
from heartseg.metrics.plausibility import CASE_FLAGS, PATIENT_FLAGS
from heartseg.report.markdown import number, table, with_interval

COMPARED = {
    "ef_vs_reference": "EF against masks (points)",
    "ef_vs_recorded": "EF against the recorded one (points)",
    "edv_ml": "EDV against masks (mL)",
    "esv_ml": "ESV against masks (mL)",
}
PUBLISHED = """\
Published on CAMUS, for comparison: the U-Nets of Leclerc et al. (IEEE TMI 38(9), 2019, abstract)
reach r 0.95 and a mean absolute error of 9.5 mL in EDV and ESV, r 0.80 and 5.6 points in EF,
"below the inter-observer scores" and "slightly worse than the intra-observer's ones". LU-Net
(Leclerc et al., IEEE TUFFC 67(12), 2020, abstract): r 0.96 and 7.6 mL, r 0.83 and 5.0 points.
Both on the whole release, other patients than here. Cardiologists who contour ED and ES by hand on
2-D echocardiograms (171 subjects of two centres, other data: medRxiv 10.1101/2022.07.26.22278059,
abstract) agree among themselves with Lin's concordance 0.84 in EF, 0.82 in EDV and 0.89 in ESV, to
be held against ICC(2,1) above."""


def clinical_section(metrics: dict[str, Any], synthetic: bool) -> str:
    """Return the section as Markdown; "" without any of its values.

    It has EF and volumes by image quality, classes of EF, published results, and plausibility.

    Args:
        metrics: Content of report.json of CAMUS. Parts whose values are missing are left out.
        synthetic: Whether the data are phantoms, to which published results do not apply.
    """
    parts = ["## Clinical agreement"]
    if qualities := metrics.get("ef_by_quality"):
        rows = [
            (quality, *(_error(found.get(name) or {}) for name in COMPARED))
            for quality, found in qualities.items()
        ]
        head = ("image quality", *COMPARED.values())
        parts.append("Mean absolute error (r from -1 to 1, n patients):\n\n" + table(head, rows))
    if classes := metrics.get("ef_classes"):
        rows = [
            (
                f"{COMPARED[name].split(' (')[0]}, below {threshold} %",
                number(found["accuracy"], 3),
                number(found["kappa"], 2),
                *(found[key] for key in ("true_below", "false_below", "false_above", "true_above")),
            )
            for name, thresholds in classes.items()
            for threshold, found in thresholds.items()
        ]
        counts = (
            "both below (patients)",
            "model alone below",
            "reference alone below",
            "neither",
        )
        parts.append(
            table(("patients by EF", "accuracy (0 to 1)", "kappa (-1 to 1)", *counts), rows)
        )
    if not synthetic:
        parts.append(PUBLISHED)
    if found := metrics.get("plausibility"):
        rows = [("all", number(found["n"]), with_interval(found, "fraction"))]
        for group in ("by_view", "by_phase"):
            rows += [
                (name, number(part["n"]), with_interval(part, "fraction"))
                for name, part in (found.get(group) or {}).items()
            ]
        parts.append(table(("images", "n", "anatomically plausible (0 to 1)"), rows))
        rows = [(CASE_FLAGS[name], count) for name, count in found["flags"].items()]
        parts.append(table(("flag (cases.csv names the images)", "images"), rows))
    if volumes := get(metrics, "plausibility", "volumes"):
        parts.append(
            f"Plausible volumes and EF: {number(volumes['plausible'])} of {number(volumes['n'])} "
            "patients. The errors above include all patients."
        )
        rows = [(PATIENT_FLAGS[name], count) for name, count in volumes["flags"].items()]
        parts.append(table(("flag (clinical.csv names the patients)", "patients"), rows))
    chosen, dice = (get(metrics, "postprocess", key) for key in ("chosen", "val_dice"))
    if chosen and dice:
        parts.append(
            f"Post-processing, chosen on {metrics['postprocess']['chosen_on']} patients: "
            f"{chosen.replace('_', ' ')} "
            f"(mean Dice {number(dice['none'], 4)} without, "
            f"{number(dice['largest_component'], 4)} with each structure's largest part only)."
        )
    return "\n\n".join(parts) if len(parts) > 1 else ""


def _error(found: dict[str, Any]) -> str:
    error, r = number(found.get("mae"), 2), number(found.get("r"), 2)
    return f"{error} ({r}, {number(found.get('n'))})"
