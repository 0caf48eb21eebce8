"""Prediction of held-out images and their comparison with the reference masks."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import track

from heartseg.data.prepared import decode_image, decode_png
from heartseg.data.species import SPECIES, Species
from heartseg.datasets import DATASETS
from heartseg.evaluation.clinical import SUMMARY_COLUMNS, clinical_row
from heartseg.evaluation.summary import case_metrics
from heartseg.metrics.calibration import Calibration
from heartseg.metrics.mmode import fractional_shortening, teichholz_ef, window_row
from heartseg.metrics.pixel_scale import measure_lv, scale_disagreement
from heartseg.metrics.plausibility import Ranges, flags
from heartseg.metrics.uncertainty import case_uncertainty, normalised_entropy

Predict = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Function from a uint8 image (C, H, W) to a label map (H, W) and class probabilities (K, H, W)."""
CASE_COLUMNS = ["case_id", "patient", "view", "phase", "quality"]


@dataclass(frozen=True)
class MeasuredCases:
    """The measurements of `measure_cases`.

    Attributes:
        cases: Rows of cases.csv, one per case and structure, with the case's uncertainty (0 to 1)
            and, for CAMUS, flags of plausibility.
        clinical: Rows of clinical.csv, one per patient, for M-mode one per window.
        calibration: Calibration of the class probabilities.
    """

    cases: pd.DataFrame
    clinical: pd.DataFrame
    calibration: Calibration


def measure_cases(
    frames: pd.DataFrame,
    dataset: str,
    predict: Predict,
    ranges: Ranges,
) -> MeasuredCases:
    """Predict every frame and measure the prediction.

    Args:
        frames: Rows of the prepared dataset.
        dataset: "camus" or "mmode".
        predict: Prediction function of the model.
        ranges: Ranges of plausible areas, from `heartseg.metrics.plausibility.area_ranges`.
    """
    apical = DATASETS[dataset].apical
    calibration = Calibration(dataset)
    cases: list[dict[str, Any]] = []
    clinical: list[dict[str, Any]] = []
    patients = frames.groupby("patient")
    disable = not Console().is_terminal
    for patient, patient_frames in track(patients, "evaluating", len(patients), disable=disable):
        masks, images = {}, {}
        first = len(cases)
        for frame in patient_frames.to_dict("records"):
            image = decode_image(frame["image"], frame["height"])
            prediction, probabilities = predict(image)
            reference = decode_png(frame["mask"])
            calibration.add(probabilities, reference)
            spacing = (frame["spacing_row"], frame["spacing_col"])
            about = {column: frame[column] for column in CASE_COLUMNS}
            rows = case_metrics(dataset, frame["case_id"], prediction, reference, spacing)
            entropy = normalised_entropy(probabilities)
            extra = {"uncertainty": case_uncertainty(entropy, prediction)}
            if apical:
                key = frame["view"], frame["phase"]
                extra |= flags(prediction, spacing, ranges.get(key), image[0])
                images[key] = image[0]
            cases += [about | row | extra for row in rows]
            masks[frame["view"], frame["phase"]] = (prediction, reference, spacing)
            if not apical:
                species = SPECIES[frame["species"]]
                found = window_row(prediction, reference, spacing, species)
                about = {"case_id": frame["case_id"], "patient": patient}
                clinical.append(about | found | _known_values_mmode(frame, species))
        if apical:
            sizes = {
                key: measure_lv(labels, spacing) for key, (labels, _, spacing) in masks.items()
            }
            scales_differ = bool(scale_disagreement(sizes))
            for row in cases[first:]:
                row["scales_differ"] = scales_differ
                # Removing the key first makes it the last column.
                row["plausible"] = row.pop("plausible") and not scales_differ
        if apical and (indices := clinical_row(masks, images)) is not None:
            quality = "/".join(filter(None, patient_frames["quality"].unique()))  # views may differ
            about = {"patient": patient, "quality": quality}
            clinical.append(about | indices | _known_values_camus(patient_frames))
    columns = SUMMARY_COLUMNS if apical and not clinical else None
    return MeasuredCases(pd.DataFrame(cases), pd.DataFrame(clinical, columns=columns), calibration)


def join_measured(parts: Sequence[MeasuredCases], dataset: str) -> MeasuredCases:
    """Join the measurements of several parts of a dataset, such as the folds."""
    calibration = Calibration(dataset)
    for part in parts:
        calibration.join(part.calibration)
    cases, clinical = (
        pd.concat([getattr(part, name) for part in parts], ignore_index=True)
        for name in ("cases", "clinical")
    )
    return MeasuredCases(cases, clinical, calibration)


def _known_values_camus(frames: pd.DataFrame) -> dict[str, float]:
    """Return the values that come with the data of a patient; NaN for missing values."""
    first = frames[["reference_ef", "reference_edv", "reference_esv"]].bfill().iloc[0]
    return {
        "ef_percent_recorded": first["reference_ef"],
        "edv_ml_true": first["reference_edv"],
        "esv_ml_true": first["reference_esv"],
    }


def _known_values_mmode(frame: Mapping[Hashable, Any], species: Species) -> dict[str, float]:
    """Return the values that come with the data of an M-mode window; NaN for missing values."""
    lvidd, lvids = frame["reference_lvidd"], frame["reference_lvids"]
    return {
        "lvidd_mm_true": lvidd,
        "lvids_mm_true": lvids,
        "fs_percent_true": fractional_shortening(lvidd, lvids),
        "ef_percent_true": teichholz_ef(lvidd, lvids, species),
        "hr_bpm_true": frame["reference_hr"],
    }
