"""Area and volume of the left ventricle over the frames of one apical view."""

from __future__ import annotations

from collections.abc import Sequence
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
    measured_or_nan,
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
    """Measure the LV in each frame of a sequence.

    Args:
        labels: Label maps (T, H, W).
        spacing: (row, column) in mm.
        reference: Reference label maps of the same shape.
        numbers: Frame number of each map in the recording, from 1; by default 1, 2, ...
        frame_rate: Frames per second.

    Returns:
        A row per frame with columns frame (from 1), time_s (from the first frame; NaN if the frame
        rate is unknown), lv_area_cm2, lv_length_mm, lv_volume_ml (area-length) and phase ("ED" at
        the largest volume, "ES" at the smallest, else ""). With a reference, the last four also
        with the suffix _reference, and dice_<structure>. Values are NaN if the LV cannot be
        measured.

    Raises:
        ValueError: The shape of the reference differs.
    """
    if reference is not None and reference.shape != labels.shape:
        raise ValueError(f"reference has shape {reference.shape}, label maps have {labels.shape}")
    frame = np.arange(1, len(labels) + 1) if numbers is None else np.asarray(numbers)
    curves = pd.DataFrame({"frame": frame, "time_s": (frame - 1) / (frame_rate or np.nan)})
    curves = curves.assign(**_measure(labels, spacing, ""))
    if reference is not None:
        curves = curves.assign(**_measure(reference, spacing, "_reference"))
        for name in DATASETS["camus"].structures:
            pairs = zip(
                structure_mask(labels, "camus", name),
                structure_mask(reference, "camus", name),
                strict=True,
            )
            curves[f"dice_{name}"] = [mask_dice(found, real) for found, real in pairs]
    return curves


def _measure(maps: np.ndarray, spacing: Spacing, suffix: str) -> dict[str, Any]:
    """Measure label maps (T, H, W); return the columns of `lv_curves` with a suffix."""
    volumes = np.array([measured_or_nan(area_length_volume, one, spacing) for one in maps])
    phases = np.full(len(maps), "", dtype=object)
    if np.isfinite(volumes).sum() > 1:
        phases[np.nanargmin(volumes)] = "ES"
        phases[np.nanargmax(volumes)] = "ED"
    return {
        f"lv_area_cm2{suffix}": [measured_or_nan(lv_area, one, spacing) / 100 for one in maps],
        f"lv_length_mm{suffix}": [measured_or_nan(long_axis_length, one, spacing) for one in maps],
        f"lv_volume_ml{suffix}": volumes,
        f"phase{suffix}": phases,
    }


def summarise_curves(curves: pd.DataFrame) -> dict[str, float]:
    """Summarise the rows of `lv_curves`.

    Returns:
        frames, not_measured (number of frames without a measurable LV), ed_frame, es_frame, edv_ml,
        esv_ml and ef_percent. With a reference, the last five also with the suffix _reference, and
        the mean of each dice_<structure> over the frames. Values are NaN if fewer than two frames
        could be measured.
    """
    summary: dict[str, float] = {
        "frames": len(curves),
        "not_measured": int(curves["lv_volume_ml"].isna().sum()),
    }
    for suffix in ("", "_reference"):
        if f"phase{suffix}" not in curves:
            continue
        at = {phase: curves[curves[f"phase{suffix}"] == phase] for phase in ("ED", "ES")}
        for phase, row in at.items():
            summary[f"{phase.lower()}_frame{suffix}"] = row["frame"].max()  # NaN without a row
        edv, esv = (at[phase][f"lv_volume_ml{suffix}"].max() for phase in ("ED", "ES"))
        summary[f"edv_ml{suffix}"], summary[f"esv_ml{suffix}"] = edv, esv
        summary[f"ef_percent{suffix}"] = ejection_fraction(edv, esv) if edv > 0 else np.nan
    for name in DATASETS["camus"].structures:
        if f"dice_{name}" in curves:
            summary[f"dice_{name}"] = float(curves[f"dice_{name}"].mean())
    return summary
