"""The figures of an evaluation, and its summary for the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from heartseg.config.nested import get
from heartseg.data.prepared import decode_image, decode_png
from heartseg.data.privacy import CaseNames
from heartseg.datasets import DATASETS
from heartseg.evaluation.cases import MeasuredCases, Predict
from heartseg.evaluation.clinical import comparisons
from heartseg.evaluation.summary import mean_of, uncertainty_and_dice
from heartseg.metrics.uncertainty import normalised_entropy
from heartseg.report.figures import (
    agreement_scatter,
    bland_altman,
    box_plots,
    overlay_panel,
)
from heartseg.report.reliability import reliability_diagram, uncertainty_panel, uncertainty_scatter
from heartseg.report.targets import target_panels

SHOWN = {"worst": 0.0, "median": 0.5, "best": 1.0}
"""Cases drawn as overlays: the quantile of their mean Dice by name."""


def overlays(
    frames: pd.DataFrame, cases: pd.DataFrame, dataset: str, predict: Predict, names: CaseNames
) -> dict[str, Figure]:
    """Draw the worst, the median and the best case by mean Dice.

    The uncertainty of the worst case and the training targets of the median case are drawn too.

    Args:
        frames: Rows of the prepared dataset.
        cases: Rows of cases.csv.
        dataset: Name of the dataset.
        predict: Prediction function of the model.
        names: Conversion of names of cases into the names that may be shown.

    Returns:
        Figures by file name without suffix.
    """
    ranked = mean_of("dice", cases, dataset).sort_values(kind="stable")
    figures = {}
    for name, part in SHOWN.items():
        case_id = ranked.index[round(part * (len(ranked) - 1))]
        frame = frames[frames["case_id"] == case_id].iloc[0]
        image = decode_image(frame["image"], frame["height"])
        reference, (prediction, probabilities) = decode_png(frame["mask"]), predict(image)
        title = f"{name}: {names.shown(case_id)}, Dice {ranked[case_id]:.3f}"
        spacing = (frame["spacing_row"], frame["spacing_col"])
        figures[f"overlay_{name}"] = overlay_panel(
            image[0], reference, prediction, dataset, title, spacing
        )
        if name == "worst":
            figures["uncertainty_worst"] = uncertainty_panel(
                image[0], prediction, normalised_entropy(probabilities), dataset, title, spacing
            )
        if name == "median":
            maps = {"reference": reference, "prediction": prediction}
            figures["targets_median"] = target_panels(image[0], maps, dataset, title, spacing)
    return figures


def charts(measured: MeasuredCases, dataset: str, split: str) -> dict[str, Figure]:
    """Draw box plots, agreement of clinical values, calibration and uncertainty.

    Args:
        measured: Measurements of the held-out cases.
        dataset: Name of the dataset.
        split: Name of the split, for titles.

    Returns:
        Figures by file name without suffix.
    """
    cases, clinical = measured.cases, measured.clinical
    figures = {
        "box_plots": box_plots(cases, dataset),
        "calibration": reliability_diagram(measured.calibration, split),
        "uncertainty": uncertainty_scatter(uncertainty_and_dice(cases, dataset)),
    }
    spec = DATASETS[dataset]
    recorded = comparisons(clinical)["ef_vs_recorded"] if spec.apical else pd.DataFrame()
    for key, (quantity, unit) in spec.charts.items():
        pair = (
            (recorded["reference"], recorded["measured"])
            if key == "ef_percent_recorded"
            else (clinical[f"{key}_reference"], clinical[f"{key}_predicted"])
        )
        qualities = clinical.loc[pair[0].index, "quality"] if spec.apical else None
        figures[f"{key}_bland_altman"] = bland_altman(*pair, quantity, unit, qualities)
        figures[f"{key}_scatter"] = agreement_scatter(*pair, quantity, unit)
    return figures


def report_text(report: dict[str, Any], dataset: str, results: Path) -> str:
    """Return the headline with intervals, and warnings, as a text for the terminal.

    Args:
        report: Content of report.json.
        dataset: Name of the dataset.
        results: Folder of the results.
    """
    n = report["n_patients"]
    lines = [
        f"{results / 'report.json'}: {report['n_cases']} images of {n} patients or animals "
        f"({report['evaluated_on']})"
    ]
    for name, item in DATASETS[dataset].headline.items():
        *above, last = item.key.split(".")
        value, low, high = (get(report, *above, f"{last}{end}") for end in ("", "_low", "_high"))
        if isinstance(value, int):
            shown = f"{value:>8d}"
        else:
            shown = "       –" if value is None else f"{value:8.{item.decimals}f}"
        if low is not None and high is not None:
            shown += f"  ({low:.{item.decimals}f} to {high:.{item.decimals}f})"
        lines.append(f"  {name:<11} {shown:<30} {item.text}")
    volumes = (report.get("plausibility") or {}).get("volumes") or {"flags": {}}
    if flags := ", ".join(f"{flag} {count}" for flag, count in volumes["flags"].items() if count):
        implausible = volumes["n"] - volumes["plausible"]
        lines.append(
            f"  implausible volumes of {implausible} of {volumes['n']} patients ({flags}): see "
            "clinical.csv"
        )
    return "\n".join(lines)
