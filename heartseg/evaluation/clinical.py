"""Clinical indices of patients from masks of both apical views, and their agreement.

The indices are computed by `heartseg.metrics.ejection`. clinical.csv has a row per patient, and
report.json has the summary. The names of columns and keys contain the unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from heartseg.config.params import Evaluate
from heartseg.datasets.camus import PHASES, VIEWS
from heartseg.metrics import Spacing
from heartseg.metrics.agreement import agreement, agreement_over_patients, threshold_agreement
from heartseg.metrics.chamber import left_atrium, left_ventricle
from heartseg.metrics.ejection import (
    Masks,
    area_length,
    disk_volume,
    ejection_fraction,
    measured_or_nan,
    measured_or_none,
    myocardial_area,
    phase_volume,
    stroke_volume,
)
from heartseg.metrics.plausibility import PATIENT_FLAGS, patient_flags

EF_THRESHOLDS = (30.0, 40.0, 50.0)
"""Percent. EF is severely reduced below 30 (Lang et al. 2015), reduced in heart failure up to 40,
and mildly reduced below 50 (McDonagh et al., European Heart Journal 42, 2021)."""
QUALITIES = ("Good", "Medium", "Poor")
SUMMARY_COLUMNS = [
    "patient",
    "quality",
    *[
        f"{value}_{of}"
        for of in ("reference", "predicted")
        for value in ("edv_ml", "esv_ml", "ef_percent")
    ],
    "ef_percent_release_predicted",
    "ef_percent_recorded",
    "edv_ml_true",
    "esv_ml_true",
    *[f"{flag}_predicted" for flag in (*PATIENT_FLAGS, "plausible")],
]
"""Columns of clinical.csv that the summaries read."""

Frame = tuple[np.ndarray, np.ndarray, Spacing]  # prediction, reference, spacing
Images = Mapping[tuple[str, str], np.ndarray]  # gray values by (view, phase)


# --- rows ---------------------------------------------------------------------------------


def clinical_row(
    frames: Mapping[tuple[str, str], Frame], images: Images | None = None
) -> dict[str, float] | None:
    """Compute the clinical indices of one patient from reference and predicted masks.

    Args:
        frames: Prediction (H, W), reference (H, W) and spacing (row, column) in mm by
            (view, phase).
        images: Gray values (H, W) by (view, phase), as in `clinical_indices`.

    Returns:
        The values of `clinical_indices`, with the suffixes _reference and _predicted; NaN if a mask
        lacks the chamber or the chamber is too small. None if a view or a phase is missing.
    """
    if any((view, phase) not in frames for view in VIEWS for phase in PHASES):
        return None
    reference = {key: (labels, spacing) for key, (_, labels, spacing) in frames.items()}
    predicted = {key: (labels, spacing) for key, (labels, _, spacing) in frames.items()}
    return {
        f"{name}_{of}": value
        for of, masks in (("reference", reference), ("predicted", predicted))
        for name, value in clinical_indices(masks, images).items()
    }


def clinical_indices(masks: Masks, images: Images | None = None) -> dict[str, float]:
    """Compute the clinical indices of a patient's four label maps.

    Args:
        masks: Label map (H, W) and spacing (row, column) in mm by (view, phase).
        images: Gray values (H, W) by (view, phase). They are needed to find an LV that is cut off
            by the edge of the ultrasound sector.

    Returns:
        Values by name; NaN for values that cannot be measured.

        - edv_ml, esv_ml, sv_ml, ef_percent: biplane disks, with the long axis of each phase
        - ef_percent_release: biplane disks with one disk height for both phases, from the longest
          of the four long axes. The CAMUS release computed the EF in Info_*.cfg in this way (see
          the script that comes with it). Shortening along the axis has no effect on it.
        - edv_ml, esv_ml, ef_percent _area_length_VIEW: area-length method in one view
        - lv_length_mm, lv_area_mm2, myo_area_mm2, la_area_mm2 _VIEW_PHASE
        - la_volume_ml, la_volume_disks_ml: area-length and biplane disks at ES, when the left
          atrium is largest
        - edge, size, scales_differ, phases, plausible: plausibility of the LV's volumes and EF,
          from `heartseg.metrics.plausibility.patient_flags`
    """
    lv = {key: measured_or_none(left_ventricle, *mask) for key, mask in masks.items()}
    la = {key: measured_or_none(left_atrium, *mask) for key, mask in masks.items()}
    lengths = [chamber.length for chamber in lv.values() if chamber]
    longest = max(lengths) if len(lengths) == len(masks) else None
    edv, esv = (phase_volume(lv, phase) for phase in PHASES)
    common = [phase_volume(lv, phase, longest) if longest else np.nan for phase in PHASES]
    found = {
        "edv_ml": edv,
        "esv_ml": esv,
        "sv_ml": measured_or_nan(stroke_volume, edv, esv),
        "ef_percent": measured_or_nan(ejection_fraction, edv, esv),
        "ef_percent_release": measured_or_nan(ejection_fraction, *common),
    }
    for view in VIEWS:
        volumes = [
            area_length(chamber.area, chamber.area, chamber.length) if chamber else np.nan
            for chamber in (lv[view, phase] for phase in PHASES)
        ]
        values = (*volumes, measured_or_nan(ejection_fraction, *volumes))
        for name, value in zip(("edv_ml", "esv_ml", "ef_percent"), values, strict=True):
            found[f"{name}_area_length_{view}"] = value
    for (view, phase), mask in masks.items():
        ventricle, atrium = lv[view, phase], la[view, phase]
        found[f"lv_length_mm_{view}_{phase}"] = ventricle.length if ventricle else np.nan
        found[f"lv_area_mm2_{view}_{phase}"] = ventricle.area if ventricle else np.nan
        found[f"myo_area_mm2_{view}_{phase}"] = measured_or_nan(myocardial_area, *mask)
        found[f"la_area_mm2_{view}_{phase}"] = atrium.area if atrium else np.nan
    two, four = la["2CH", "ES"], la["4CH", "ES"]
    found["la_volume_ml"] = found["la_volume_disks_ml"] = np.nan
    if two and four:
        shorter = min(two.length, four.length)
        found["la_volume_ml"] = area_length(two.area, four.area, shorter)
        found["la_volume_disks_ml"] = disk_volume(two, four)
    return found | patient_flags(masks, (edv, esv), images)


# --- summaries ----------------------------------------------------------------------------


def summarise_clinical(rows: pd.DataFrame, evaluate: Evaluate) -> dict[str, Any]:
    """Compute the part of report.json about EF and volumes.

    Patients whose value could not be measured are counted as `missing` and have no error.

    Args:
        rows: Rows of `clinical_row` with patient, quality, ef_percent_recorded, edv_ml_true and
            esv_ml_true. A table without patients has the columns `SUMMARY_COLUMNS`.
        evaluate: Section of params.yaml.

    Returns:
        - ef: agreement of the `comparisons` over all patients
        - ef_by_quality: the same by image quality, which is the poorer of the two views
        - ef_classes: `classification` at `EF_THRESHOLDS`, for both comparisons of EF
        - ef_classes_by_quality: the same by image quality
    """
    compared = comparisons(rows)
    quality = rows["quality"].map(poorer_quality)
    by_quality = {
        str(value): comparisons(group) for value, group in rows[quality != ""].groupby(quality)
    }
    return {
        "ef": {
            name: agreement_over_patients(
                pair["reference"], pair["measured"], rows.loc[pair.index, "patient"], evaluate
            )
            for name, pair in compared.items()
        },
        "ef_by_quality": {
            value: {
                name: agreement(pair["reference"], pair["measured"]) for name, pair in pairs.items()
            }
            for value, pairs in by_quality.items()
        },
        "ef_classes": _classes(compared),
        "ef_classes_by_quality": {value: _classes(pairs) for value, pairs in by_quality.items()},
    }


def _classes(compared: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    return {
        name: threshold_agreement(
            compared[name]["reference"], compared[name]["measured"], EF_THRESHOLDS
        )
        for name in ("ef_vs_reference", "ef_vs_recorded")
    }


def comparisons(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Pair the reference values with the measured ones.

    Args:
        rows: Rows as in `summarise_clinical`.

    Returns:
        Tables with the columns reference and measured, by comparison.

        - ef_vs_reference, edv_ml, esv_ml: predicted against reference masks, with the long axis of
          each phase
        - ef_vs_recorded: predicted masks against the EF that comes with the data, measured by the
          same method. The CAMUS release used one disk height for both phases. If volumes come with
          the EF, as for phantoms, each phase has its own long axis. On the masks of the release,
          the two methods differ by 8 points on average.
        - edv_true_ml, esv_true_ml: predicted masks against the volumes that come with the data, if
          there are any
    """
    known, true = rows[rows["ef_percent_recorded"].notna()], rows[rows["edv_ml_true"].notna()]
    measured_ef = known["ef_percent_predicted"].where(
        known["edv_ml_true"].notna(), known["ef_percent_release_predicted"]
    )
    pairs = {
        "ef_vs_reference": (rows["ef_percent_reference"], rows["ef_percent_predicted"]),
        "edv_ml": (rows["edv_ml_reference"], rows["edv_ml_predicted"]),
        "esv_ml": (rows["esv_ml_reference"], rows["esv_ml_predicted"]),
        "ef_vs_recorded": (known["ef_percent_recorded"], measured_ef),
    }
    if len(true):
        pairs["edv_true_ml"] = true["edv_ml_true"], true["edv_ml_predicted"]
        pairs["esv_true_ml"] = true["esv_ml_true"], true["esv_ml_predicted"]
    return {
        name: pd.DataFrame({"reference": reference, "measured": measured}, dtype=float)
        for name, (reference, measured) in pairs.items()
    }


def poorer_quality(quality: str) -> str:
    """Return the poorer quality of a text such as "Good/Poor"; unknown words are unchanged."""
    words = quality.split("/")
    return max(words, key=QUALITIES.index) if set(words) <= set(QUALITIES) else quality
