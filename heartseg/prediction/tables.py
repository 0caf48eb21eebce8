"""The tables of a prediction: a row per frame, per patient, per sequence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from heartseg.data.camus.names import parse_frame
from heartseg.datasets.camus import PHASES, VIEWS
from heartseg.evaluation.clinical import clinical_indices
from heartseg.metrics import Spacing
from heartseg.metrics.ejection import (
    area_length_volume,
    la_area,
    long_axis_length,
    lv_area,
    myocardial_area,
)
from heartseg.metrics.plausibility import flags, is_cut_off
from heartseg.metrics.uncertainty import case_uncertainty
from heartseg.paths import write_text
from heartseg.prediction.files import Job, patient_of
from heartseg.text import csv_text


class Mask(NamedTuple):
    """The label map of a file's first frame.

    Attributes:
        labels: label map (H, W).
        spacing: (row, column) in mm; None without a scale.
        image: gray values (H, W), to tell an LV that the ultrasound sector cuts off.
    """

    job: Job
    labels: np.ndarray
    spacing: Spacing | None
    image: np.ndarray | None = None


IN_PIXELS = (1.0, 1.0)
"""Spacing of what is measured without a scale."""
MEASURED: dict[str, Callable[[np.ndarray, Spacing], float]] = {
    "lv_length_mm": long_axis_length,
    "lv_area_mm2": lv_area,
    "myo_area_mm2": myocardial_area,
    "la_area_mm2": la_area,
    "lv_volume_area_length_ml": area_length_volume,
}


def frame_rows(
    job: Job,
    labels: np.ndarray,
    numbers: np.ndarray,
    spacing: Spacing | None,
    out: Path,
    entropies: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """Rows of images.csv: image, patient, view, phase, frame (from 1), then uncertainty (0 to 1,
    see `case_uncertainty`) and `MEASURED`, which is empty where there is nothing to measure.

    Args:
        job: of the file.
        labels: label maps (K, H, W).
        numbers: (K,) which frames these are, from 0.
        spacing: (row, column) in mm; without it nothing is measured.
        out: folder that image names are relative to.
        entropies: of `normalised_entropy`, (K, H, W); without them there is no uncertainty.
    """
    named = parse_frame(job.place.name)
    names = asdict(named) if named else {"patient": "", "view": "", "phase": ""}
    rows = [
        {"image": str(job.place.relative_to(out)), **names, "frame": int(number) + 1}
        for number in numbers
    ]
    if entropies is not None:
        for row, mask, entropy in zip(rows, labels, entropies, strict=True):
            row["uncertainty"] = case_uncertainty(entropy, mask)
    if spacing is not None:
        for row, mask in zip(rows, labels, strict=True):
            row |= {name: _or_nan(measure, mask, spacing) for name, measure in MEASURED.items()}
    return rows


def add_flags(
    rows: list[dict[str, Any]], labels: np.ndarray, spacing: Spacing | None, images: np.ndarray
) -> None:
    """Add to the rows of frames what is odd about their label maps, and `plausible`: see
    `heartseg.metrics.plausibility`. Areas are not judged: no cohort is known here.

    Args:
        rows: of `frame_rows`.
        labels: label maps (K, H, W).
        spacing: (row, column) in mm; without it, `edge` is the only flag.
        images: gray values (K, H, W).
    """
    for row, mask, image in zip(rows, labels, images, strict=True):
        if spacing is None:
            row["edge"] = is_cut_off(mask, IN_PIXELS, image)
        else:
            found = flags(mask, spacing, image=image)
            row |= {name: odd for name, odd in found.items() if name != "area"}


def _or_nan(
    measure: Callable[[np.ndarray, Spacing], float], mask: np.ndarray, spacing: Spacing
) -> float:
    try:
        return measure(mask, spacing)
    except ValueError:
        return np.nan


def clinical_rows(masks: Sequence[Mask], out: Path) -> list[dict[str, Any]]:
    """Rows of clinical.csv: `heartseg.evaluation.clinical.clinical_indices` of each patient of
    whom both views at both phases are given.

    If none of the four has a scale, the ejection fractions and the flag `edge` alone are there: a
    scale that the two phases of a view share cancels out of a ratio of volumes. Pixels are taken
    as square.

    Args:
        masks: of files.
        out: folder that patients' names are relative to.
    """
    patients: dict[Path, dict[tuple[str, str], Mask]] = defaultdict(dict)
    for mask in masks:
        if frame := parse_frame(mask.job.place.name):
            patients[patient_of(mask.job)][frame.view, frame.phase] = mask
    rows = []
    for patient, frames in sorted(patients.items()):
        found = _indices(frames)
        if found is not None:
            folder = str(patient.parent.relative_to(out))
            rows.append({"patient": patient.name, "folder": folder} | found)
    return rows


def _indices(frames: Mapping[tuple[str, str], Mask]) -> dict[str, float] | None:
    """The indices of a patient, the fractions alone without a scale; None if they cannot be had."""
    if len(frames) < len(VIEWS) * len(PHASES):
        return None
    images = {key: mask.image for key, mask in frames.items() if mask.image is not None}
    scaled = {key: (mask.labels, mask.spacing) for key, mask in frames.items() if mask.spacing}
    if len(scaled) == len(frames):
        return clinical_indices(scaled, images)
    shapes = {key: mask.labels.shape for key, mask in frames.items()}
    if scaled or any(shapes[view, "ED"] != shapes[view, "ES"] for view in VIEWS):
        return None
    found = clinical_indices(
        {key: (mask.labels, IN_PIXELS) for key, mask in frames.items()}, images
    )
    return {
        name: value
        for name, value in found.items()
        if name.startswith("ef_percent") or name == "edge"
    }


def write_table(rows: list[dict[str, Any]], path: Path) -> None:
    """Rows as CSV, whole or not at all; no rows leave no file, also none of an earlier time."""
    if rows:
        write_text(path, csv_text(pd.DataFrame(rows)))
    else:
        path.unlink(missing_ok=True)
