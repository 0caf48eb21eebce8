"""Is a label map of an apical view anatomically plausible? Flags, never a filter.

After the anatomical criteria of Painchaud et al., "Cardiac Segmentation with Strong Anatomical
Guarantees", IEEE TMI 39(11), 2020, as far as they need no other image. Label maps are (H, W)
with the values of `heartseg.data.labels.Camus`; spacing is (row, column) in mm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage

from heartseg.config import Evaluate
from heartseg.data.labels import Camus
from heartseg.data.prepared import decode_png
from heartseg.metrics import Spacing
from heartseg.metrics.bootstrap import FRACTION, named_interval
from heartseg.metrics.chamber import contour, distances, filled, largest_part

FLAGS = {
    "incomplete": "a structure is absent",
    "pieces": "a structure has more than one part",
    "holes": "a structure has a hole",
    "lv_open": "the LV borders on the background other than at its base",
    "la_apart": "the LA does not touch the LV",
    "area": "an area lies outside the training patients' range",
    "edge": "the LV touches the image's edge",
}
CHAMBERS = (Camus.LV, Camus.MYO, Camus.LA)
ANY_NEIGHBOUR = np.ones((3, 3), bool)  # pixels that meet at a corner belong together
BASE_MM = 5.0
"""The LV's contour this close to the atrium is its base, which no wall covers."""
WALL_MM = 2.0
"""The LV's contour this close to the wall is covered by it."""
OPEN_PART = 0.05
"""So much of the contour may lie open: valve leaflets and hinges are not drawn sharply."""
TOUCH_MM = 2.0
"""Chambers this close touch: annotators leave a seam for the valve."""
RANGE_MARGIN = 0.1
"""The cohort's range is widened by this part on both sides: it is a sample's."""

Ranges = dict[tuple[str, str], dict[Camus, tuple[float, float]]]
"""By view and phase, and structure: the smallest and the largest plausible area in mm2."""


def flags(
    labels: np.ndarray,
    spacing: Spacing,
    ranges: Mapping[Camus, tuple[float, float]] | None = None,
) -> dict[str, bool]:
    """The flags of one label map by `FLAGS`' names, True where something is odd; and plausible.

    `plausible` says that no flag is set. Without `ranges` (no training patient has this view
    and phase) areas are not judged.
    """
    at_edge = _at_edge(labels == Camus.LV)
    labels = _cropped(labels)
    masks = {name: labels == name for name in CHAMBERS}
    epicardium = masks[Camus.LV] | masks[Camus.MYO]
    found = {
        "incomplete": not all(mask.any() for mask in masks.values()),
        "pieces": any(ndimage.label(mask, ANY_NEIGHBOUR)[1] > 1 for mask in masks.values()),
        "holes": any(
            (filled(mask) != mask).any() for mask in (masks[Camus.LV], epicardium, masks[Camus.LA])
        ),
        "lv_open": _open_part(labels, spacing) > OPEN_PART,
        "la_apart": _gap(labels, spacing) > TOUCH_MM,
        "area": any(
            not low <= area <= high
            for name, (low, high) in (ranges or {}).items()
            if (area := _area(labels, name, spacing))
        ),
        "edge": at_edge,
    }
    return found | {"plausible": not any(found.values())}


def area_ranges(frames: pd.DataFrame) -> Ranges:
    """The plausible areas, learned from the reference masks of a prepared dataset's rows.

    Smallest and largest area of each structure by view and phase, widened by `RANGE_MARGIN`.
    """
    areas: dict[tuple[str, str], dict[Camus, list[float]]] = {}
    for frame in frames.to_dict("records"):
        labels, spacing = decode_png(frame["mask"]), (frame["spacing_row"], frame["spacing_col"])
        own = areas.setdefault((frame["view"], frame["phase"]), {name: [] for name in CHAMBERS})
        for name in CHAMBERS:
            if area := _area(labels, name, spacing):
                own[name].append(area)
    return {
        key: {
            name: (min(values) * (1 - RANGE_MARGIN), max(values) * (1 + RANGE_MARGIN))
            for name, values in own.items()
            if values
        }
        for key, own in areas.items()
    }


def summarise_plausibility(cases: pd.DataFrame, evaluate: Evaluate) -> dict[str, Any]:
    """The plausible part of all cases (0 to 1), by view and by phase, and the cases of each flag.

    Args:
        cases: rows with case_id, patient, view, phase, plausible and `FLAGS`' names; a case may
            have several rows.
        evaluate: the section of params.yaml.
    """
    cases = cases.drop_duplicates("case_id")
    groups = {
        f"by_{column}": {
            str(value): _plausible(group, evaluate) for value, group in cases.groupby(column)
        }
        for column in ("view", "phase")
    }
    return (
        _plausible(cases, evaluate)
        | {"flags": {name: int(cases[name].sum()) for name in FLAGS}}
        | groups
    )


def _plausible(cases: pd.DataFrame, evaluate: Evaluate) -> dict[str, float]:
    plausible = cases["plausible"].astype(float)
    fraction = named_interval("fraction", plausible, cases["patient"], evaluate, FRACTION)
    return {"n": len(cases)} | fraction


def _area(labels: np.ndarray, structure: Camus, spacing: Spacing) -> float:
    return float(np.count_nonzero(labels == structure) * spacing[0] * spacing[1])


def _at_edge(mask: np.ndarray) -> bool:
    return bool(mask[[0, -1]].any() or mask[:, [0, -1]].any())


def _cropped(labels: np.ndarray) -> np.ndarray:
    """The structures' surroundings, a pixel wide where the image goes on."""
    rows, columns = np.flatnonzero(labels.any(1)), np.flatnonzero(labels.any(0))
    if not len(rows):
        return labels[:1, :1]
    top, left = max(int(rows[0]) - 1, 0), max(int(columns[0]) - 1, 0)
    return labels[top : int(rows[-1]) + 2, left : int(columns[-1]) + 2]


def _open_part(labels: np.ndarray, spacing: Spacing) -> float:
    """Part of the LV's contour that neither wall, base nor image edge covers; 0 without LV."""
    padded = np.pad(labels, 1)
    cavity = largest_part(padded == Camus.LV)
    pixels = contour(filled(cavity))
    inner = ((pixels > 0.5) & (pixels < np.array(padded.shape) - 1.5)).all(axis=1)
    if not inner.any():
        return 0.0
    bare = distances(padded == Camus.MYO, pixels[inner], spacing) > WALL_MM
    bare &= distances(padded == Camus.LA, pixels[inner], spacing) > BASE_MM
    return float(bare.mean())


def _gap(labels: np.ndarray, spacing: Spacing) -> float:
    """Distance in mm between the LV's and the LA's pixels that are closest; 0 where one lacks."""
    ventricle, atrium = largest_part(labels == Camus.LV), largest_part(labels == Camus.LA)
    if not ventricle.any() or not atrium.any():
        return 0.0
    away = ndimage.distance_transform_edt(~atrium, sampling=spacing)[ventricle].min()
    return max(float(away) - max(spacing), 0.0)
