"""Is a label map of an apical view, or a patient's set of them, plausible? Flags, never a filter.

After the anatomical criteria of Painchaud et al., "Cardiac Segmentation with Strong Anatomical
Guarantees", IEEE TMI 39(11), 2020, as far as they need no other image. Label maps are (H, W)
with the values of `heartseg.datasets.camus.Camus`; spacing is (row, column) in mm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from heartseg.config.params import Evaluate
from heartseg.data.prepared import decode_png
from heartseg.datasets.camus import Camus
from heartseg.metrics import Spacing
from heartseg.metrics.bootstrap import FRACTION, named_interval
from heartseg.metrics.chamber import contour, distances, filled, largest_part
from heartseg.metrics.scale import (
    disagreement,
    impossible_size,
    measured,
    possible_volume,
    swapped_phases,
)

FLAGS = {
    "incomplete": "a structure is absent",
    "pieces": "a structure has more than one part",
    "holes": "a structure has a hole",
    "lv_open": "the LV borders on the background other than at its base",
    "la_apart": "the LA does not touch the LV",
    "area": "an area lies outside the training patients' range",
    "edge": "the LV is cut off by the edge of the image or of the ultrasound sector",
    "size": "the LV is larger or smaller than that of any human",
}
PATIENT_FLAGS = {
    "edge": "the LV is cut off in one of the four images, so its volume is too small",
    "size": "an LV or a volume is larger or smaller than that of any human",
    "scales_differ": "the images disagree about the scale",
    "phases": "an LV is smaller at ED than at ES, so the images may be swapped",
}
"""What makes a patient's volumes and EF implausible."""
CASE_FLAGS = FLAGS | {"scales_differ": "the patient's images disagree about the scale"}
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
BLACK = 5
"""Gray value up to which a pixel counts as black: compression leaves noise around the sector."""
SECTOR_EDGE_MM = 1.0
"""A contour this close to the sector's edge runs along it."""
EDGE_PART = 0.1
"""So much of the contour may: annotators draw walls that leave the sector, which cross its edge. Of
1,198 reference masks of the CAMUS release 3 exceed it: their base or a wall lies on the edge."""
RANGE_MARGIN = 0.1
"""The cohort's range is widened by this part on both sides: it is a sample's."""

Ranges = dict[tuple[str, str], dict[Camus, tuple[float, float]]]
"""By view and phase, and structure: the smallest and the largest plausible area in mm2."""


def flags(
    labels: np.ndarray,
    spacing: Spacing,
    ranges: Mapping[Camus, tuple[float, float]] | None = None,
    image: np.ndarray | None = None,
) -> dict[str, bool]:
    """The flags of one label map by `FLAGS`' names, True where something is odd; and plausible.

    Args:
        labels: label map (H, W).
        spacing: (row, column) in mm.
        ranges: of plausible areas; without them (no training patient has this view and phase)
            areas are not judged.
        image: gray values (H, W), 0 outside of the ultrasound sector; without them the sector's
            edge is not looked for.

    Returns:
        The flags, and `plausible`: no flag is set.
    """
    at_edge = is_cut_off(labels, spacing, image)
    size = impossible_size(measured(labels, spacing))
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
        "size": bool(size),
    }
    return found | {"plausible": not any(found.values())}


def patient_flags(
    masks: Mapping[tuple[str, str], tuple[np.ndarray, Spacing]],
    volumes: Iterable[float] = (),
    images: Mapping[tuple[str, str], np.ndarray] | None = None,
) -> dict[str, bool]:
    """The flags of a patient's volumes and EF by `PATIENT_FLAGS`' names; and plausible.

    Args:
        masks: label map (H, W) and spacing (row, column) in mm by (view, phase).
        volumes: of the LV in mL, NaN where it could not be measured.
        images: gray values (H, W) by (view, phase), see `flags`.

    Returns:
        The flags, and `plausible`: no flag is set.
    """
    sizes = {key: measured(*mask) for key, mask in masks.items()}
    found = {
        "edge": any(is_cut_off(*mask, (images or {}).get(key)) for key, mask in masks.items()),
        "size": any(impossible_size(size) for size in sizes.values())
        or not all(possible_volume(volume) for volume in volumes),
        "scales_differ": bool(disagreement(sizes)),
        "phases": bool(swapped_phases(sizes)),
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
        cases: rows with case_id, patient, view, phase, plausible and `CASE_FLAGS`' names; a case
            may have several rows.
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
        | {"flags": {name: int(cases[name].sum()) for name in CASE_FLAGS}}
        | groups
    )


def summarise_volumes(clinical: pd.DataFrame) -> dict[str, Any]:
    """How many patients' predicted volumes and EF are plausible, and the patients of each flag.

    Args:
        clinical: rows with `PATIENT_FLAGS`' names and plausible, with the ending _predicted.
    """
    counts = {
        name: int(clinical[f"{name}_predicted"].sum()) for name in (*PATIENT_FLAGS, "plausible")
    }
    return {"n": len(clinical), "plausible": counts.pop("plausible"), "flags": counts}


def _plausible(cases: pd.DataFrame, evaluate: Evaluate) -> dict[str, float]:
    plausible = cases["plausible"].astype(float)
    fraction = named_interval("fraction", plausible, cases["patient"], evaluate, FRACTION)
    return {"n": len(cases)} | fraction


def _area(labels: np.ndarray, structure: Camus, spacing: Spacing) -> float:
    return float(np.count_nonzero(labels == structure) * spacing[0] * spacing[1])


def is_cut_off(labels: np.ndarray, spacing: Spacing, image: np.ndarray | None = None) -> bool:
    """Whether the LV ends at the edge of the image or, given its gray values, of the sector."""
    ventricle = labels == Camus.LV
    if ventricle[[0, -1]].any() or ventricle[:, [0, -1]].any():
        return True
    if image is None or not ventricle.any():
        return False
    sector = _sector(image, spacing)
    if sector is None:
        return False
    points = contour(filled(largest_part(ventricle))) * spacing
    away = (points @ sector[:, :2].T + sector[:, 2]).max(axis=1)  # negative inside of the sector
    return bool((abs(away) < SECTOR_EDGE_MM).mean() > EDGE_PART)


def _sector(image: np.ndarray, spacing: Spacing) -> np.ndarray | None:
    """The ultrasound sector of an image, as the convex hull of what is not black.

    Returns:
        The hull's edges (n, 3): outward unit normal (row, column) and offset in mm; None if there
        is no sector.
    """
    seen = ndimage.binary_opening(image > BLACK)  # without single pixels of noise
    rows = np.flatnonzero(seen.any(axis=1))
    if len(rows) < 2:
        return None
    first, last = seen[rows].argmax(axis=1), seen.shape[1] - 1 - seen[rows, ::-1].argmax(axis=1)
    ends = np.concatenate((np.stack((rows, first), axis=1), np.stack((rows, last), axis=1)))
    try:
        return ConvexHull(ends * spacing).equations
    except QhullError:  # all on one line
        return None


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
