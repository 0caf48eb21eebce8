"""Area and volume of the left ventricle over the frames of one apical view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from heartseg.datasets import DATASETS, structure_mask
from heartseg.metrics import Spacing
from heartseg.metrics.ejection import (
    area_length_volume,
    ejection_fraction,
    long_axis_length,
    lv_area,
)
from heartseg.metrics.overlap import mask_dice


def lv_curves(
    labels: np.ndarray,
    spacing: Spacing,
    *,
    reference: np.ndarray | None = None,
    numbers: Sequence[int] | np.ndarray | None = None,
    frame_rate: float | None = None,
) -> pd.DataFrame:
    """A row per frame of a sequence.

    Columns: frame (from 1), time_s (from the first frame; NaN where the frame rate is unknown),
    lv_area_cm2, lv_length_mm, lv_volume_ml (area-length), phase ("ED" at the largest volume, "ES"
    at the smallest, else ""). With a reference also the first three with the ending _reference,
    phase_reference, and dice_<structure>. NaN where a frame has no LV to measure.

    Args:
        labels: label maps (T, H, W).
        spacing: (row, column) in mm.
        reference: label maps of the same shape.
        numbers: each map's frame number in the recording; None takes 1, 2, ...
        frame_rate: frames per second.

    Raises:
        ValueError: the reference has another shape.
    """
    if reference is not None and reference.shape != labels.shape:
        raise ValueError(f"the reference is {reference.shape}, the label maps {labels.shape}")
    frame = np.arange(1, len(labels) + 1) if numbers is None else np.asarray(numbers)
    curves = pd.DataFrame({"frame": frame, "time_s": (frame - 1) / (frame_rate or np.nan)})
    curves = curves.assign(**_measured(labels, spacing, ""))
    if reference is not None:
        curves = curves.assign(**_measured(reference, spacing, "_reference"))
        for name in DATASETS["camus"].structures:
            pairs = zip(
                structure_mask(labels, "camus", name),
                structure_mask(reference, "camus", name),
                strict=True,
            )
            curves[f"dice_{name}"] = [mask_dice(found, real) for found, real in pairs]
    return curves


def _measured(maps: np.ndarray, spacing: Spacing, ending: str) -> dict[str, Any]:
    volumes = np.array([_or_nan(area_length_volume, one, spacing) for one in maps])
    phases = np.full(len(maps), "", dtype=object)
    if np.isfinite(volumes).sum() > 1:
        phases[np.nanargmin(volumes)] = "ES"
        phases[np.nanargmax(volumes)] = "ED"
    return {
        f"lv_area_cm2{ending}": [_or_nan(lv_area, one, spacing) / 100 for one in maps],
        f"lv_length_mm{ending}": [_or_nan(long_axis_length, one, spacing) for one in maps],
        f"lv_volume_ml{ending}": volumes,
        f"phase{ending}": phases,
    }


def _or_nan(measurement: Callable[..., float], labels: np.ndarray, spacing: Spacing) -> float:
    try:
        return measurement(labels, spacing)
    except ValueError:
        return np.nan


def summarise_curves(curves: pd.DataFrame) -> dict[str, float]:
    """One row for a sequence from the rows of `lv_curves`.

    frames, not_measured (frames without an LV to measure), ed_frame, es_frame, edv_ml, esv_ml,
    ef_percent; with a reference these five once more with the ending _reference, and the mean of
    each dice_<structure> over the frames. NaN where fewer than two frames could be measured.
    """
    summary: dict[str, float] = {
        "frames": len(curves),
        "not_measured": int(curves["lv_volume_ml"].isna().sum()),
    }
    for ending in ("", "_reference"):
        if f"phase{ending}" not in curves:
            continue
        at = {phase: curves[curves[f"phase{ending}"] == phase] for phase in ("ED", "ES")}
        for phase, row in at.items():
            summary[f"{phase.lower()}_frame{ending}"] = row["frame"].max()  # NaN of no row
        edv, esv = (at[phase][f"lv_volume_ml{ending}"].max() for phase in ("ED", "ES"))
        summary[f"edv_ml{ending}"], summary[f"esv_ml{ending}"] = edv, esv
        summary[f"ef_percent{ending}"] = ejection_fraction(edv, esv) if edv > 0 else np.nan
    for name in DATASETS["camus"].structures:
        if f"dice_{name}" in curves:
            summary[f"dice_{name}"] = float(curves[f"dice_{name}"].mean())
    return summary
