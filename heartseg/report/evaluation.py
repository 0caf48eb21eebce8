"""An evaluation's figures, and its few lines for the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from heartseg.data.prepared import decode_image, decode_png
from heartseg.metrics.cases import Measured, Predict
from heartseg.metrics.clinical import comparisons
from heartseg.metrics.summary import CLINICAL, mean_dice
from heartseg.metrics.uncertainty import doubt_and_dice, normalised_entropy
from heartseg.privacy import CaseNames
from heartseg.report.figures import (
    agreement_scatter,
    bland_altman,
    box_plots,
    overlay_panel,
)
from heartseg.report.quality import quality_lines
from heartseg.report.reliability import reliability_diagram, uncertainty_panel, uncertainty_scatter
from heartseg.report.targets import target_panels

CHARTS = {
    "camus": {
        "ef_percent": ("ejection fraction", "%"),
        "ef_percent_cfg": ("recorded EF", "%"),
        "edv_ml": ("end-diastolic volume", "mL"),
        "esv_ml": ("end-systolic volume", "mL"),
    },
    "mmode": {"lvidd_mm": ("LVIDd", "mm"), "fs_percent": ("fractional shortening", "%")},
}
"""Whose agreement is drawn, and its unit."""
SHOWN = {"worst": 0.0, "median": 0.5, "best": 1.0}
"""Cases drawn as overlays, by the quantile of their mean Dice."""


UNITS = {
    "masks": "points of EF",
    "cfg": "points of EF",
    "edv_ml": "mL",
    "esv_ml": "mL",
    "edv_true_ml": "mL",
    "esv_true_ml": "mL",
    "lvidd_mm": "mm",
    "lvids_mm": "mm",
    "fs_percent": "points",
    "ef_percent": "points",
    "hr_bpm": "1/min",
}
"""Of the errors of clinical values; a point is a percent of the quantity's own 0 to 100 %."""


def overlays(
    frames: pd.DataFrame, cases: pd.DataFrame, dataset: str, predict: Predict, names: CaseNames
) -> dict[str, Figure]:
    """The worst, the median and the best case by mean Dice; the worst one's uncertainty, and the
    median one's targets."""
    ranked = mean_dice(cases, dataset).sort_values(kind="stable")
    figures = {}
    for name, part in SHOWN.items():
        case_id = ranked.index[round(part * (len(ranked) - 1))]
        frame = frames[frames["case_id"] == case_id].iloc[0]
        image = decode_image(frame["image"], frame["height"])
        reference, (prediction, told) = decode_png(frame["mask"]), predict(image)
        title = f"{name}: {names.shown(case_id)}, Dice {ranked[case_id]:.3f}"
        spacing = (frame["spacing_row"], frame["spacing_col"])
        figures[f"overlay_{name}"] = overlay_panel(
            image[0], reference, prediction, dataset, title, spacing
        )
        if name == "worst":
            figures["uncertainty_worst"] = uncertainty_panel(
                image[0], prediction, normalised_entropy(told), dataset, title, spacing
            )
        if name == "median":
            maps = {"reference": reference, "prediction": prediction}
            figures["targets_median"] = target_panels(image[0], maps, dataset, title, spacing)
    return figures


def charts(measured: Measured, dataset: str, split: str) -> dict[str, Figure]:
    """Box plots, agreement, calibration and uncertainty."""
    cases, clinical = measured.cases, measured.clinical
    figures = {
        "box_plots": box_plots(cases, dataset),
        "calibration": reliability_diagram(measured.calibration, split),
        "uncertainty": uncertainty_scatter(doubt_and_dice(cases, dataset)),
    }
    recorded = comparisons(clinical)["cfg"] if dataset == "camus" else pd.DataFrame()
    for key, (quantity, unit) in CHARTS[dataset].items():
        pair = (
            (recorded["reference"], recorded["measured"])
            if key == "ef_percent_cfg"
            else (clinical[f"{key}_reference"], clinical[f"{key}_predicted"])
        )
        qualities = clinical.loc[pair[0].index, "quality"] if dataset == "camus" else None
        figures[f"{key}_bland_altman"] = bland_altman(*pair, quantity, unit, qualities)
        figures[f"{key}_scatter"] = agreement_scatter(*pair, quantity, unit)
    return figures


def report_text(metrics: dict[str, Any], results: Path) -> str:
    """A few lines for the terminal."""
    lines = [
        f"{results / 'metrics.json'}: {metrics['n_cases']} cases of {metrics['n_patients']} "
        f"patients ({metrics['evaluated_on']})"
    ]
    if "auc" in metrics:
        return "\n".join([*lines, *quality_lines(metrics)])
    for structure, values in metrics["overall"].items():
        line = f"  {structure:<5} Dice {values['dice']:.3f}"
        if values["dice_low"] is not None:
            line += f" ({values['dice_low']:.3f} to {values['dice_high']:.3f})"
        if "hd95_mm" in values:
            line += f"  HD95 {values['hd95_mm']:.2f} mm  MSD {values['msd_mm']:.2f} mm"
        lines.append(line)
    clinical = metrics.get("ef") or {key: metrics[key] for key in CLINICAL}
    for quantity, values in clinical.items():
        line = f"  {quantity:<10}"
        if values["n"]:
            line += f" bias {values['bias']:.2f}  MAE {values['mae']:.2f} {UNITS[quantity]}"
        lines.append(f"{line}  n {values['n']}  not measured {values['missing']}")
    if plausibility := metrics.get("plausibility"):
        lines.append(f"  plausible  {plausibility['fraction']:.3f} of {plausibility['n']} cases")
        volumes = plausibility.get("volumes") or {"flags": {}}
        if odd := {flag: count for flag, count in volumes["flags"].items() if count}:
            told = ", ".join(f"{flag} {count}" for flag, count in odd.items())
            implausible = volumes["n"] - volumes["plausible"]
            lines.append(
                f"  implausible volumes of {implausible} of {volumes['n']} patients ({told}): see "
                "clinical.csv"
            )
    ece, spearman = metrics["calibration"]["ece"], metrics["uncertainty"]["spearman_dice"]
    if ece is not None:
        lines.append(f"  calibration error (ECE) {ece:.4f} (0 to 1)")
    if spearman is not None:
        lines.append(f"  uncertainty against Dice: Spearman {spearman:+.2f} (-1 to 1)")
    return "\n".join(lines)
