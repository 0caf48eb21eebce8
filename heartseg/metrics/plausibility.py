"""Plausibility flags of label maps of apical views, and of all views of a patient.

The flags follow the anatomical criteria of Painchaud et al., "Cardiac Segmentation with Strong
Anatomical Guarantees", IEEE TMI 39(11), 2020, as far as these need no other image. Label maps are
(H, W) with the values of `heartseg.datasets.camus.Camus`; spacing is (row, column) in mm.
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
from heartseg.metrics.chamber import contour, distances, fill_holes, largest_component
from heartseg.metrics.pixel_scale import (
    impossible_size,
    measure_lv,
    possible_volume,
    scale_disagreement,
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
"""Reasons why a patient's volumes and EF are implausible."""
CASE_FLAGS = FLAGS | {"scales_differ": "the patient's images disagree about the scale"}
CHAMBERS = (Camus.LV, Camus.MYO, Camus.LA)
EIGHT_NEIGHBOURS = np.ones((3, 3), bool)
BASE_MM = 5.0
"""Maximum distance to the atrium of contour points that belong to the base, which has no wall."""
WALL_MM = 2.0
"""Maximum distance to the myocardium of contour points that it covers."""
MAX_OPEN = 0.05
"""Maximum fraction of the contour that is open. Leaflets and hinges are not drawn precisely."""
TOUCH_MM = 2.0
"""Maximum distance of touching chambers. Annotators leave a gap for the valve."""
BLACK = 5
"""Maximum grey value of a black pixel. Compression causes noise around the sector."""
SECTOR_EDGE_MM = 1.0
"""Maximum distance to the edge of the sector of contour points on it."""
MAX_ON_EDGE = 0.1
"""Maximum fraction of the contour on the edge of the sector. It is above 0 because annotators draw
walls that cross the edge. 3 of 1,198 reference masks of the CAMUS release exceed it, with a base or
a wall on the edge."""
RANGE_MARGIN = 0.1
"""Fraction by which the range of the training patients' areas is extended on both sides."""

Ranges = dict[tuple[str, str], dict[Camus, tuple[float, float]]]
"""Smallest and largest plausible area in mm2 of each structure, by (view, phase)."""


def flags(
    labels: np.ndarray,
    spacing: Spacing,
    ranges: Mapping[Camus, tuple[float, float]] | None = None,
    image: np.ndarray | None = None,
) -> dict[str, bool]:
    """Compute the flags of a label map.

    Args:
        labels: Label map (H, W).
        spacing: (row, column) in mm.
        ranges: Ranges of plausible areas. Without them, areas are not checked.
        image: Grey values (H, W), 0 outside the ultrasound sector. Without them, the edge of the
            sector is not checked.

    Returns:
        Each flag of `FLAGS`, True if it applies, and "plausible", True if none applies.
    """
    at_edge = is_cut_off(labels, spacing, image)
    size = impossible_size(measure_lv(labels, spacing))
    labels = _cropped(labels)
    masks = {name: labels == name for name in CHAMBERS}
    epicardium = masks[Camus.LV] | masks[Camus.MYO]
    found = {
        "incomplete": not all(mask.any() for mask in masks.values()),
        "pieces": any(ndimage.label(mask, EIGHT_NEIGHBOURS)[1] > 1 for mask in masks.values()),
        "holes": any(
            (fill_holes(mask) != mask).any()
            for mask in (masks[Camus.LV], epicardium, masks[Camus.LA])
        ),
        "lv_open": _open_fraction(labels, spacing) > MAX_OPEN,
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
    """Compute the flags of a patient's volumes and EF.

    Args:
        masks: Label map (H, W) and spacing (row, column) in mm by (view, phase).
        volumes: LV volumes in mL, NaN if not measured.
        images: Grey values (H, W) by (view, phase); see `flags`.

    Returns:
        Each flag of `PATIENT_FLAGS`, True if it applies, and "plausible", True if none applies.
    """
    sizes = {key: measure_lv(*mask) for key, mask in masks.items()}
    found = {
        "edge": any(is_cut_off(*mask, (images or {}).get(key)) for key, mask in masks.items()),
        "size": any(impossible_size(size) for size in sizes.values())
        or not all(possible_volume(volume) for volume in volumes),
        "scales_differ": bool(scale_disagreement(sizes)),
        "phases": bool(swapped_phases(sizes)),
    }
    return found | {"plausible": not any(found.values())}


def area_ranges(frames: pd.DataFrame) -> Ranges:
    """Compute the ranges of plausible areas from reference masks.

    A range extends from the smallest to the largest area, widened by `RANGE_MARGIN`.

    Args:
        frames: Rows of a prepared dataset.
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
    """Compute the fraction of plausible cases, and the number of cases with each flag.

    Args:
        cases: Rows with case_id, patient, view, phase, plausible and the names of `CASE_FLAGS`. A
            case may have several rows.
        evaluate: Section `evaluate` of params.yaml.

    Returns:
        n, fraction with its bootstrap interval, flags, and the same for by_view and by_phase
        without flags.
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
    """Count the patients with plausible predicted volumes and EF, and those with each flag.

    Args:
        clinical: Rows with the names of `PATIENT_FLAGS` and plausible, with the suffix _predicted.
    """
    counts = {
        name: int(clinical[f"{name}_predicted"].sum()) for name in (*PATIENT_FLAGS, "plausible")
    }
    return {"n": len(clinical), "plausible": counts.pop("plausible"), "flags": counts}


def _plausible(cases: pd.DataFrame, evaluate: Evaluate) -> dict[str, float]:
    """Compute the number of cases and the fraction that is plausible, with its interval."""
    plausible = cases["plausible"].astype(float)
    fraction = named_interval("fraction", plausible, cases["patient"], evaluate, FRACTION)
    return {"n": len(cases)} | fraction


def _area(labels: np.ndarray, structure: Camus, spacing: Spacing) -> float:
    """Measure the area of a structure in mm2."""
    return float(np.count_nonzero(labels == structure) * spacing[0] * spacing[1])


def is_cut_off(labels: np.ndarray, spacing: Spacing, image: np.ndarray | None = None) -> bool:
    """Return whether the LV is cut off by the edge of the image or of the ultrasound sector.

    Args:
        labels: Label map (H, W).
        spacing: (row, column) in mm.
        image: Grey values (H, W). Without them, the sector is not checked.
    """
    ventricle = labels == Camus.LV
    if ventricle[[0, -1]].any() or ventricle[:, [0, -1]].any():
        return True
    if image is None or not ventricle.any():
        return False
    sector = _sector(image, spacing)
    if sector is None:
        return False
    points = contour(fill_holes(largest_component(ventricle))) * spacing
    distance = (points @ sector[:, :2].T + sector[:, 2]).max(axis=1)  # negative inside the sector
    return bool((abs(distance) < SECTOR_EDGE_MM).mean() > MAX_ON_EDGE)


def _sector(image: np.ndarray, spacing: Spacing) -> np.ndarray | None:
    """Find the ultrasound sector of an image (H, W): the convex hull of all pixels above `BLACK`.

    Returns:
        Edges of the hull (n, 3): outward unit normal (row, column) and offset in mm; None if there
        is no sector.
    """
    inside = ndimage.binary_opening(image > BLACK)  # removes single pixels of noise
    rows = np.flatnonzero(inside.any(axis=1))
    if len(rows) < 2:
        return None
    first = inside[rows].argmax(axis=1)
    last = inside.shape[1] - 1 - inside[rows, ::-1].argmax(axis=1)
    ends = np.concatenate((np.stack((rows, first), axis=1), np.stack((rows, last), axis=1)))
    try:
        return ConvexHull(ends * spacing).equations
    except QhullError:  # all points are on one line
        return None


def _cropped(labels: np.ndarray) -> np.ndarray:
    """Crop a label map to its structures, with a margin of one pixel inside the image."""
    rows, columns = np.flatnonzero(labels.any(1)), np.flatnonzero(labels.any(0))
    if not len(rows):
        return labels[:1, :1]
    top, left = max(int(rows[0]) - 1, 0), max(int(columns[0]) - 1, 0)
    return labels[top : int(rows[-1]) + 2, left : int(columns[-1]) + 2]


def _open_fraction(labels: np.ndarray, spacing: Spacing) -> float:
    """Compute the fraction of the LV's contour without wall, base or image edge; 0 without LV."""
    padded = np.pad(labels, 1)
    cavity = largest_component(padded == Camus.LV)
    pixels = contour(fill_holes(cavity))
    inner = ((pixels > 0.5) & (pixels < np.array(padded.shape) - 1.5)).all(axis=1)
    if not inner.any():
        return 0.0
    is_open = distances(padded == Camus.MYO, pixels[inner], spacing) > WALL_MM
    is_open &= distances(padded == Camus.LA, pixels[inner], spacing) > BASE_MM
    return float(is_open.mean())


def _gap(labels: np.ndarray, spacing: Spacing) -> float:
    """Measure the smallest distance in mm between LV and LA; 0 if one of them is absent."""
    ventricle, atrium = largest_component(labels == Camus.LV), largest_component(labels == Camus.LA)
    if not ventricle.any() or not atrium.any():
        return 0.0
    distance = ndimage.distance_transform_edt(~atrium, sampling=spacing)[ventricle].min()
    return max(float(distance) - max(spacing), 0.0)
