"""Metrics of cases, and their summary in report.json.

The summary has means over all cases and by subgroup, and the agreement of clinical values, with
bootstrap intervals over patients. The keys contain the units.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from heartseg.config.nested import get
from heartseg.config.params import Evaluate
from heartseg.datasets import DATASETS, structure_mask
from heartseg.evaluation.clinical import summarise_clinical
from heartseg.metrics import Spacing
from heartseg.metrics.agreement import agreement_over_patients
from heartseg.metrics.bootstrap import FRACTION, NOT_NEGATIVE, named_interval
from heartseg.metrics.overlap import mask_dice
from heartseg.metrics.surface import hd95_mm, mean_surface_distance_mm

LIMITS = {"dice": FRACTION, "hd95_mm": NOT_NEGATIVE, "msd_mm": NOT_NEGATIVE}
"""Smallest and greatest possible value of a case's metric."""
CLINICAL = ("lvidd_mm", "lvids_mm", "fs_percent", "ef_percent", "hr_bpm")


# --- rows ---------------------------------------------------------------------------------


def case_metrics(
    dataset: str, case_id: str, prediction: np.ndarray, reference: np.ndarray, spacing: Spacing
) -> list[dict[str, Any]]:
    """Compare a predicted label map with its reference.

    Args:
        dataset: "camus" or "mmode".
        case_id: Name of the frame or window.
        prediction: Label map (H, W).
        reference: Label map (H, W).
        spacing: (row, column) in mm, for M-mode in mm and s.

    Returns:
        A row per structure with case_id, structure, dice, hd95_mm, msd_mm, and missed: whether
        only the reference has the structure. Distances are NaN for M-mode, whose axes have
        different units.
    """
    rows = []
    in_mm = "hd95_mm" in DATASETS[dataset].case_metrics
    for structure in DATASETS[dataset].structures:
        found = structure_mask(prediction, dataset, structure)
        real = structure_mask(reference, dataset, structure)
        rows.append(
            {
                "case_id": case_id,
                "structure": structure,
                "dice": mask_dice(found, real),
                "hd95_mm": hd95_mm(found, real, spacing) if in_mm else np.nan,
                "msd_mm": mean_surface_distance_mm(found, real, spacing) if in_mm else np.nan,
                "missed": bool(real.any() and not found.any()),
            }
        )
    return rows


# --- summaries ----------------------------------------------------------------------------


def summarise_camus(
    cases: pd.DataFrame, clinical: pd.DataFrame, evaluate: Evaluate
) -> dict[str, Any]:
    """Compute report.json for CAMUS.

    Args:
        cases: Rows of `case_metrics` with patient, view, phase and quality.
        clinical: Rows as in `heartseg.evaluation.clinical.summarise_clinical`.
        evaluate: Section of params.yaml.

    Returns:
        JSON-serialisable values from `json_safe`.
    """
    summary = _summarise_cases(cases, "camus", evaluate) | {
        f"by_{column}": _by(cases, column, "camus", evaluate)
        for column in ("view", "phase", "quality")
    }
    return json_safe(summary | summarise_clinical(clinical, evaluate))


def summarise_mmode(
    cases: pd.DataFrame, windows: pd.DataFrame, evaluate: Evaluate
) -> dict[str, Any]:
    """Compute report.json for M-mode.

    Clinical values of predicted masks are compared with those of the reference masks, and under
    the key `truth` with the values that come with the data, if there are any. Windows whose value
    could not be measured are counted as `missing` and have no error.

    Args:
        cases: Rows of `case_metrics` with patient and quality.
        windows: Rows of `heartseg.metrics.mmode.window_row` with patient, and the `CLINICAL`
            columns with the suffix _true.
        evaluate: Section of params.yaml.

    Returns:
        JSON-serialisable values from `json_safe`.
    """
    summary = _summarise_cases(cases, "mmode", evaluate)
    summary["by_quality"] = _by(cases, "quality", "mmode", evaluate)
    summary["truth"] = {}
    for quantity in CLINICAL:
        reference, predicted = windows[f"{quantity}_reference"], windows[f"{quantity}_predicted"]
        summary[quantity] = agreement_over_patients(
            reference, predicted, windows["patient"], evaluate
        )
        known = windows[windows[f"{quantity}_true"].notna()]
        if len(known):
            true, predicted = known[f"{quantity}_true"], known[f"{quantity}_predicted"]
            summary["truth"][quantity] = agreement_over_patients(
                true, predicted, known["patient"], evaluate
            )
    return json_safe(summary)


def json_safe(value: Any) -> Any:
    """Round floats to 6 digits and replace NaN and infinity by None, at any depth of dicts."""
    if isinstance(value, dict):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, (float, np.floating)):
        return round(float(value), 6) if math.isfinite(value) else None
    return value


def mean_of(metric: str, cases: pd.DataFrame, dataset: str) -> pd.Series:
    """Return a metric by case_id, averaged over the dataset's `mean_of` structures."""
    counted = cases[cases["structure"].isin(DATASETS[dataset].mean_of)]
    return counted.groupby("case_id", sort=True)[metric].mean()


def uncertainty_and_dice(cases: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Return a row per case with its uncertainty and mean dice, from the rows of cases.csv."""
    uncertainty = cases.groupby("case_id")["uncertainty"].first()
    return pd.DataFrame({"uncertainty": uncertainty, "dice": mean_of("dice", cases, dataset)})


def _summarise_cases(cases: pd.DataFrame, dataset: str, evaluate: Evaluate) -> dict[str, Any]:
    return {
        "n_patients": int(cases["patient"].nunique()),
        "n_cases": int(cases["case_id"].nunique()),
        "overall": _structures(cases, dataset, evaluate),
    }


def _by(cases: pd.DataFrame, column: str, dataset: str, evaluate: Evaluate) -> dict[str, Any]:
    """Summarise the cases as in `overall` by the values of a column; cases with "" are left out."""
    return {
        str(value): {"n": int(group["case_id"].nunique()), **_structures(group, dataset, evaluate)}
        for value, group in cases[cases[column] != ""].groupby(column)
    }


def _structures(
    cases: pd.DataFrame, dataset: str, evaluate: Evaluate
) -> dict[str, dict[str, float]]:
    """Return means with intervals by structure, and under "mean" those of the mean structure."""
    found: dict[str, dict[str, float]] = {}
    for structure, rows in cases.groupby("structure", sort=False):
        found[str(structure)] = {}
        for metric in DATASETS[dataset].case_metrics:
            values, patients, limits = rows[metric], rows["patient"], LIMITS[metric]
            found[str(structure)] |= named_interval(metric, values, patients, evaluate, limits)
        found[str(structure)]["missed"] = int(rows["missed"].sum())
    if len(found) > 1:
        patients = cases.groupby("case_id")["patient"].first()
        found["mean"] = {}
        for metric in ("dice", "hd95_mm"):
            values, limits = mean_of(metric, cases, dataset), LIMITS[metric]
            found["mean"] |= named_interval(
                metric, values, patients[values.index], evaluate, limits
            )
    return found


def headline(report: dict[str, Any], dataset: str) -> dict[str, float | int | None]:
    """Return the few numbers of report.json by which models are compared, by their short names.

    Undefined values are None, for example EF_bias if no patient has a recorded EF.
    """
    items = DATASETS[dataset].headline.items()
    return {name: get(report, *item.key.split(".")) for name, item in items}


def round_headline(headline: dict[str, Any], dataset: str) -> dict[str, Any]:
    """Round a headline to the decimals of its dataset; undefined values are left out."""
    return {
        name: round(value, DATASETS[dataset].headline[name].decimals or None)
        for name, value in headline.items()
        if value is not None
    }
