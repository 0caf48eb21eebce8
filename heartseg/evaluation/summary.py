"""Tables of an evaluation (a row per case, patient or window) and their summary.

The summary is what report.json holds: means over all cases and by subgroup, and the agreement
of clinical values, with bootstrap intervals over patients. Units are in the keys.
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
"""The least and greatest value that a metric of a case can have."""
CLINICAL = ("lvidd_mm", "lvids_mm", "fs_percent", "ef_percent", "hr_bpm")


# --- rows ---------------------------------------------------------------------------------


def case_metrics(
    dataset: str, case_id: str, prediction: np.ndarray, reference: np.ndarray, spacing: Spacing
) -> list[dict[str, Any]]:
    """A row per structure: case_id, structure, dice, hd95_mm, msd_mm, missed.

    `missed` says that the reference has the structure and the prediction has not. Distances
    are NaN for M-mode, whose axes have different units (mm and s).

    Args:
        dataset: "camus" or "mmode".
        case_id: of the frame or window.
        prediction: label map (H, W).
        reference: label map (H, W).
        spacing: (row, column).
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
    """report.json for CAMUS.

    Args:
        cases: rows of `case_metrics` with patient, view, phase and quality.
        clinical: rows of `clinical_row` as `summarise_clinical` takes them.
        evaluate: the section of params.yaml.

    Returns:
        JSON-serialisable: floats rounded to 6 digits, null for what is undefined.
    """
    summary = _summarise_cases(cases, "camus", evaluate) | {
        f"by_{column}": _by(cases, column, "camus", evaluate)
        for column in ("view", "phase", "quality")
    }
    return json_safe(summary | summarise_clinical(clinical, evaluate))


def summarise_mmode(
    cases: pd.DataFrame, windows: pd.DataFrame, evaluate: Evaluate
) -> dict[str, Any]:
    """report.json for M-mode.

    Clinical values of predicted masks against those of the reference masks, and under `truth`
    against the values that came with the data, where there are any. Windows whose value could
    not be measured count as `missing`, not into the errors.

    Args:
        cases: rows of `case_metrics` with patient and quality.
        windows: rows of `window_row` with patient, and the `CLINICAL` columns with the ending
            _true.
        evaluate: the section of params.yaml.
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
    """The same with floats rounded to 6 digits and None for NaN and infinity, as JSON has it."""
    if isinstance(value, dict):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, (float, np.floating)):
        return round(float(value), 6) if math.isfinite(value) else None
    return value


def mean_of(metric: str, cases: pd.DataFrame, dataset: str) -> pd.Series:
    """A metric by case_id, averaged over the structures that count."""
    counted = cases[cases["structure"].isin(DATASETS[dataset].mean_of)]
    return counted.groupby("case_id", sort=True)[metric].mean()


def uncertainty_and_dice(cases: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Columns uncertainty and (mean) dice, a row per case, of the rows of cases.csv."""
    doubt = cases.groupby("case_id")["uncertainty"].first()
    return pd.DataFrame({"uncertainty": doubt, "dice": mean_of("dice", cases, dataset)})


def _summarise_cases(cases: pd.DataFrame, dataset: str, evaluate: Evaluate) -> dict[str, Any]:
    return {
        "n_patients": int(cases["patient"].nunique()),
        "n_cases": int(cases["case_id"].nunique()),
        "overall": _structures(cases, dataset, evaluate),
    }


def _by(cases: pd.DataFrame, column: str, dataset: str, evaluate: Evaluate) -> dict[str, Any]:
    """The same as `overall` by the values of a column; cases without one are left out."""
    return {
        str(value): {"n": int(group["case_id"].nunique()), **_structures(group, dataset, evaluate)}
        for value, group in cases[cases[column] != ""].groupby(column)
    }


def _structures(
    cases: pd.DataFrame, dataset: str, evaluate: Evaluate
) -> dict[str, dict[str, float]]:
    """Means with their intervals by structure, and the mean Dice of those that count."""
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
    """The few numbers of report.json by which models are compared, under their names.

    None for what is undefined: EF_bias, for example, where no patient has a recorded EF.
    """
    items = DATASETS[dataset].headline.items()
    return {name: get(report, *item.key.split(".")) for name, item in items}


def round_headline(headline: dict[str, Any], dataset: str) -> dict[str, Any]:
    """A headline with as many decimals as are worth reading; undefined values are left out."""
    return {
        name: round(value, DATASETS[dataset].headline[name].decimals or None)
        for name, value in headline.items()
        if value is not None
    }
