"""Tables of an evaluation (a row per case, patient or window) and their summary.

The summary is what metrics.json holds: means over all cases and by subgroup, and the agreement
of clinical values, with bootstrap intervals over patients. Units are in the keys.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from heartseg.config import Evaluate
from heartseg.data.labels import STRUCTURES, structure_mask
from heartseg.metrics import Spacing
from heartseg.metrics.agreement import agreement
from heartseg.metrics.bootstrap import mean_interval
from heartseg.metrics.ejection import (
    biplane_volume,
    ejection_fraction,
    release_ejection_fraction,
)
from heartseg.metrics.mmode import MOUSE_RATES, measure
from heartseg.metrics.overlap import mask_dice
from heartseg.metrics.surface import hd95_mm, mean_surface_distance_mm

CASE_METRICS = {"camus": ("dice", "hd95_mm", "msd_mm"), "mmode": ("dice",)}
MEAN_OF = {"camus": ("LV", "MYO", "LA"), "mmode": ("LV",)}
"""Structures of the mean Dice: each pixel counts once, so LVepi is left out."""
CLINICAL = ("lvidd_mm", "lvids_mm", "fs_percent", "ef_percent", "hr_bpm")

Frame = tuple[np.ndarray, np.ndarray, Spacing]  # prediction, reference, spacing


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
    in_mm = "hd95_mm" in CASE_METRICS[dataset]
    for structure in STRUCTURES[dataset]:
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


def ef_row(frames: Mapping[tuple[str, str], Frame]) -> dict[str, float] | None:
    """Volumes (mL) and ejection fraction (percent) of one patient's masks.

    Columns edv_, esv_, ef_ with each phase's own long axis, and ef_release_ with the disk
    height that the CAMUS release used; each for the reference and the predicted masks. NaN
    where a mask that the value needs has no LV, or one too small.

    Args:
        frames: prediction, reference and spacing by (view, phase).

    Returns:
        None where a view or a phase is absent.
    """
    if any((view, phase) not in frames for view in ("2CH", "4CH") for phase in ("ED", "ES")):
        return None
    order = [frames[view, phase] for view in ("2CH", "4CH") for phase in ("ED", "ES")]
    predicted = [prediction for prediction, _, _ in order]
    reference = [reference for _, reference, _ in order]
    spacings = order[0][2], order[2][2]
    return _volumes(reference, spacings, "reference") | _volumes(predicted, spacings, "predicted")


def _volumes(
    masks: list[np.ndarray], spacings: tuple[Spacing, Spacing], name: str
) -> dict[str, float]:
    ed_2ch, es_2ch, ed_4ch, es_4ch = masks
    two, four = spacings
    edv = _or_nan(biplane_volume, ed_2ch, two, ed_4ch, four)
    esv = _or_nan(biplane_volume, es_2ch, two, es_4ch, four)
    release = (ed_2ch, es_2ch, two, ed_4ch, es_4ch, four)
    return {
        f"edv_{name}": edv,
        f"esv_{name}": esv,
        f"ef_{name}": _or_nan(ejection_fraction, edv, esv),
        f"ef_release_{name}": _or_nan(release_ejection_fraction, *release),
    }


def _or_nan(measurement: Callable[..., float], *arguments: Any) -> float:
    """NaN where a mask has no LV to measure: the summary counts it as missing."""
    try:
        return measurement(*arguments)
    except ValueError:
        return np.nan


def window_row(prediction: np.ndarray, reference: np.ndarray, spacing: Spacing) -> dict[str, float]:
    """LVIDd, LVIDs (mm), FS, EF by Teichholz (percent) and HR (1/min) of one M-mode window.

    Each with the endings _reference and _predicted; NaN where it cannot be measured.
    """
    slowest, fastest = MOUSE_RATES
    row = {}
    for labels, name in ((reference, "reference"), (prediction, "predicted")):
        mask = structure_mask(labels, "mmode", "LV")
        values = measure(mask, spacing, minimal_rate=slowest, maximal_rate=fastest)
        row[f"lvidd_{name}"] = values.lvidd_mm
        row[f"lvids_{name}"] = values.lvids_mm
        row[f"fs_{name}"] = values.fs_percent
        row[f"ef_{name}"] = values.ef_percent
        row[f"hr_{name}"] = values.hr_bpm
    return row


# --- summaries ----------------------------------------------------------------------------


def summarise_camus(cases: pd.DataFrame, ef: pd.DataFrame, evaluate: Evaluate) -> dict[str, Any]:
    """metrics.json for CAMUS.

    Patients whose value could not be measured count as `missing`, not into the errors. ef.masks
    compares predicted with reference masks, each phase with its own long axis, and so do ef.edv_ml
    and ef.esv_ml. ef.cfg compares predicted masks with the ejection fraction that comes with the
    data, by that one's method: with the release's common disk height, unless volumes come with it
    (as with phantoms), which have own long axes. The two methods are 8 points apart on average on
    the release's own masks.

    Args:
        cases: rows of `case_metrics` with patient, view, phase and quality.
        ef: rows of `ef_row` with patient, ef_cfg, edv_true and esv_true; may be empty.
        evaluate: the section of params.yaml.

    Returns:
        JSON-serialisable: floats rounded to 6 digits, null for what is undefined.
    """
    known = ef[ef["ef_cfg"].notna()]
    measured = known["ef_predicted"].where(known["edv_true"].notna(), known["ef_release_predicted"])
    summary = _summarise_cases(cases, "camus", evaluate) | {
        "by_view": _by(cases, "view", "camus", evaluate),
        "by_phase": _by(cases, "phase", "camus", evaluate),
        "by_quality": _by(cases, "quality", "camus", evaluate),
        "ef": {
            "masks": _agreement(ef, ef["ef_reference"], ef["ef_predicted"], evaluate),
            "edv_ml": _agreement(ef, ef["edv_reference"], ef["edv_predicted"], evaluate),
            "esv_ml": _agreement(ef, ef["esv_reference"], ef["esv_predicted"], evaluate),
            "cfg": _agreement(known, known["ef_cfg"], measured, evaluate),
        },
    }
    return tidy(summary)


def summarise_mmode(
    cases: pd.DataFrame, windows: pd.DataFrame, evaluate: Evaluate
) -> dict[str, Any]:
    """metrics.json for M-mode.

    Clinical values of predicted masks against those of the reference masks, and under `truth`
    against the values that came with the data, where there are any. Windows whose value could
    not be measured count as `missing`, not into the errors.

    Args:
        cases: rows of `case_metrics` with patient and quality.
        windows: rows of `window_row` with patient, lvidd_true, lvids_true, fs_true, ef_true and
            hr_true.
        evaluate: the section of params.yaml.
    """
    summary = _summarise_cases(cases, "mmode", evaluate)
    summary["by_quality"] = _by(cases, "quality", "mmode", evaluate)
    summary["truth"] = {}
    for quantity in CLINICAL:
        name = quantity.split("_")[0]
        reference, predicted = windows[f"{name}_reference"], windows[f"{name}_predicted"]
        summary[quantity] = _agreement(windows, reference, predicted, evaluate)
        known = windows[windows[f"{name}_true"].notna()]
        if len(known):
            true, predicted = known[f"{name}_true"], known[f"{name}_predicted"]
            summary["truth"][quantity] = _agreement(known, true, predicted, evaluate)
    return tidy(summary)


def tidy(value: Any) -> Any:
    """The same with floats rounded to 6 digits and None for NaN and infinity, as JSON has it."""
    if isinstance(value, dict):
        return {str(key): tidy(item) for key, item in value.items()}
    if isinstance(value, (float, np.floating)):
        return round(float(value), 6) if math.isfinite(value) else None
    return value


def mean_dice(cases: pd.DataFrame, dataset: str) -> pd.Series:
    """Dice by case_id, averaged over the structures that count."""
    counted = cases[cases["structure"].isin(MEAN_OF[dataset])]
    return counted.groupby("case_id", sort=True)["dice"].mean()


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
        for metric in CASE_METRICS[dataset]:
            found[str(structure)] |= _interval(metric, rows[metric], rows["patient"], evaluate)
        found[str(structure)]["missed"] = int(rows["missed"].sum())
    if len(found) > 1:
        dice = mean_dice(cases, dataset)
        patients = cases.groupby("case_id")["patient"].first()
        found["mean"] = _interval("dice", dice, patients[dice.index], evaluate)
    return found


def _agreement(
    rows: pd.DataFrame, reference: pd.Series, measured: pd.Series, evaluate: Evaluate
) -> dict[str, float]:
    """`agreement` with intervals of bias and mean absolute error over the rows' patients."""
    found = agreement(reference, measured)
    difference = (measured - reference).astype(float)
    usable = np.isfinite(difference)
    if not usable.any():
        nothing = ("bias_low", "bias_high", "mae_low", "mae_high")
        return found | dict.fromkeys(nothing, np.nan)
    patients, difference = rows.loc[usable, "patient"], difference[usable]
    return (
        found
        | _interval("bias", difference, patients, evaluate)
        | _interval("mae", difference.abs(), patients, evaluate)
    )


def _interval(
    metric: str, values: pd.Series, patients: pd.Series, evaluate: Evaluate
) -> dict[str, float]:
    mean, low, high = mean_interval(
        values,
        patients,
        samples=evaluate.bootstrap_samples,
        seed=evaluate.bootstrap_seed,
        confidence=evaluate.confidence,
    )
    return {metric: mean, f"{metric}_low": low, f"{metric}_high": high}
