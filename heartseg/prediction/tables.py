"""The tables of a prediction: a row per frame, and a row per patient."""

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
    """The label map of the first frame of a file.

    Attributes:
        job: Job of the file.
        labels: Label map, uint8 (H, W).
        spacing: (row, column) in mm, or None if the scale is unknown.
        image: Gray values (H, W), used to detect an LV that the ultrasound sector cuts off.
    """

    job: Job
    labels: np.ndarray
    spacing: Spacing | None
    image: np.ndarray | None = None


UNIT_SPACING = (1.0, 1.0)
"""Spacing if the scale is unknown."""
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
    """Return the rows of images.csv for the frames of a file.

    The columns are image, patient, view, phase and frame (from 1), then uncertainty (0 to 1, see
    `case_uncertainty`) and those of `MEASURED`. A value that cannot be measured is NaN.

    Args:
        job: Job of the file.
        labels: Label maps, uint8 (K, H, W).
        numbers: Indices of the frames, (K,), from 0.
        spacing: (row, column) in mm. Without it, the columns of `MEASURED` are left out.
        out: Folder to which the image names are relative.
        entropies: Results of `normalised_entropy`, (K, H, W). Without them, the column
            uncertainty is left out.
    """
    named = parse_frame(job.output.name)
    names = asdict(named) if named else {"patient": "", "view": "", "phase": ""}
    rows = [
        {"image": str(job.output.relative_to(out)), **names, "frame": int(number) + 1}
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
    """Add the flags of `heartseg.metrics.plausibility` to the rows of frames.

    The flag `area` is left out, because it needs a cohort to compare with.

    Args:
        rows: Rows of `frame_rows`, which are modified.
        labels: Label maps, uint8 (K, H, W).
        spacing: (row, column) in mm. Without it, `edge` is the only flag.
        images: Gray values (K, H, W).
    """
    for row, mask, image in zip(rows, labels, images, strict=True):
        if spacing is None:
            row["edge"] = is_cut_off(mask, UNIT_SPACING, image)
        else:
            found = flags(mask, spacing, image=image)
            row |= {name: value for name, value in found.items() if name != "area"}


def _or_nan(
    measure: Callable[[np.ndarray, Spacing], float], mask: np.ndarray, spacing: Spacing
) -> float:
    try:
        return measure(mask, spacing)
    except ValueError:
        return np.nan


def clinical_rows(masks: Sequence[Mask], out: Path) -> list[dict[str, Any]]:
    """Return the rows of clinical.csv, one per patient with both views at both phases.

    A row contains `heartseg.evaluation.clinical.clinical_indices`. If none of the four images has
    a scale, it contains only the ejection fractions and the flag `edge`: the scale that both phases
    of a view share cancels out of the ratio of their volumes. Pixels are assumed to be square.

    Args:
        masks: Label maps of files of any patients.
        out: Folder to which the folders of the patients are relative.
    """
    patients: dict[Path, dict[tuple[str, str], Mask]] = defaultdict(dict)
    for mask in masks:
        if frame := parse_frame(mask.job.output.name):
            patients[patient_of(mask.job)][frame.view, frame.phase] = mask
    rows = []
    for patient, frames in sorted(patients.items()):
        found = _indices(frames)
        if found is not None:
            folder = str(patient.parent.relative_to(out))
            rows.append({"patient": patient.name, "folder": folder} | found)
    return rows


def _indices(frames: Mapping[tuple[str, str], Mask]) -> dict[str, float] | None:
    """Return the indices of a patient, or None if they cannot be computed."""
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
        {key: (mask.labels, UNIT_SPACING) for key, mask in frames.items()}, images
    )
    return {
        name: value
        for name, value in found.items()
        if name.startswith("ef_percent") or name == "edge"
    }


def write_table(rows: list[dict[str, Any]], path: Path) -> None:
    """Write rows to a CSV file atomically. Without rows, delete the file."""
    if rows:
        write_text(path, csv_text(pd.DataFrame(rows)))
    else:
        path.unlink(missing_ok=True)
