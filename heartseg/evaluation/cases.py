"""The cases of an evaluation: each image predicted and measured against its reference."""

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
from heartseg.evaluation.clinical import SUMMARISED, clinical_row
from heartseg.evaluation.summary import case_metrics
from heartseg.metrics.calibration import Calibration
from heartseg.metrics.mmode import fractional_shortening, teichholz_ef, window_row
from heartseg.metrics.plausibility import Ranges, flags
from heartseg.metrics.scale import measure_lv, scale_disagreement
from heartseg.metrics.uncertainty import case_uncertainty, normalised_entropy

Predict = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""uint8 image (C, H, W) to label map (H, W) and class probabilities (K, H, W)."""
CASE_COLUMNS = ["case_id", "patient", "view", "phase", "quality"]


@dataclass(frozen=True)
class Measured:
    """What `measure_cases` found.

    Attributes:
        cases: rows of cases.csv: one per case and structure, with flags for CAMUS and the case's
            uncertainty (0 to 1).
        clinical: rows of clinical.csv: one per patient, for M-mode per window.
        calibration: of the class probabilities.
    """

    cases: pd.DataFrame
    clinical: pd.DataFrame
    calibration: Calibration


def measure_cases(
    frames: pd.DataFrame,
    dataset: str,
    predict: Predict,
    ranges: Ranges,
) -> Measured:
    """Predict every frame and measure it.

    Args:
        frames: rows of the prepared dataset.
        dataset: "camus" or "mmode".
        predict: the model.
        ranges: of plausible areas; see `heartseg.metrics.plausibility.area_ranges`.
    """
    apical = DATASETS[dataset].apical
    calibration = Calibration(dataset)
    cases: list[dict[str, Any]] = []
    clinical: list[dict[str, Any]] = []
    patients = frames.groupby("patient")
    quiet = not Console().is_terminal
    for patient, own in track(patients, "evaluating", len(patients), disable=quiet):
        masks, images = {}, {}
        first = len(cases)
        for frame in own.to_dict("records"):
            image = decode_image(frame["image"], frame["height"])
            prediction, told = predict(image)
            reference = decode_png(frame["mask"])
            calibration.add(told, reference)
            spacing = (frame["spacing_row"], frame["spacing_col"])
            about = {column: frame[column] for column in CASE_COLUMNS}
            rows = case_metrics(dataset, frame["case_id"], prediction, reference, spacing)
            odd = {"uncertainty": case_uncertainty(normalised_entropy(told), prediction)}
            if apical:
                key = frame["view"], frame["phase"]
                odd |= flags(prediction, spacing, ranges.get(key), image[0])
                images[key] = image[0]
            cases += [about | row | odd for row in rows]
            masks[frame["view"], frame["phase"]] = (prediction, reference, spacing)
            if not apical:
                species = SPECIES[frame["species"]]
                found = window_row(prediction, reference, spacing, species)
                about = {"case_id": frame["case_id"], "patient": patient}
                clinical.append(about | found | _truth_mmode(frame, species))
        if apical:
            sizes = {
                key: measure_lv(labels, spacing) for key, (labels, _, spacing) in masks.items()
            }
            apart = bool(scale_disagreement(sizes))
            for row in cases[first:]:
                row["scales_differ"] = apart
                row["plausible"] = row.pop("plausible") and not apart  # the last column
        if apical and (indices := clinical_row(masks, images)) is not None:
            quality = "/".join(filter(None, own["quality"].unique()))  # views may differ
            about = {"patient": patient, "quality": quality}
            clinical.append(about | indices | _truth_camus(own))
    columns = SUMMARISED if apical and not clinical else None
    return Measured(pd.DataFrame(cases), pd.DataFrame(clinical, columns=columns), calibration)


def joined(parts: Sequence[Measured], dataset: str) -> Measured:
    """What was found in several parts of a dataset, together."""
    calibration = Calibration(dataset)
    for part in parts:
        calibration.join(part.calibration)
    cases, clinical = (
        pd.concat([getattr(part, name) for part in parts], ignore_index=True)
        for name in ("cases", "clinical")
    )
    return Measured(cases, clinical, calibration)


def _truth_camus(frames: pd.DataFrame) -> dict[str, float]:
    """The values that came with any of a patient's frames; NaN where there are none."""
    first = frames[["reference_ef", "reference_edv", "reference_esv"]].bfill().iloc[0]
    return {
        "ef_percent_recorded": first["reference_ef"],
        "edv_ml_true": first["reference_edv"],
        "esv_ml_true": first["reference_esv"],
    }


def _truth_mmode(frame: Mapping[Hashable, Any], species: Species) -> dict[str, float]:
    """The values that came with an M-mode window; NaN where there are none."""
    lvidd, lvids = frame["reference_lvidd"], frame["reference_lvids"]
    return {
        "lvidd_mm_true": lvidd,
        "lvids_mm_true": lvids,
        "fs_percent_true": fractional_shortening(lvidd, lvids),
        "ef_percent_true": teichholz_ef(lvidd, lvids, species),
        "hr_bpm_true": frame["reference_hr"],
    }
