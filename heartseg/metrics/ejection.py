"""Volumes, areas and ejection fraction from label maps of apical views.

Lang et al., "Recommendations for Cardiac Chamber Quantification by Echocardiography in Adults",
JASE 28, 2015: part I (left ventricle: biplane disk summation, area-length) and part III (left
atrium). Label maps are (H, W) with the values of `heartseg.datasets.camus.Camus`, spacing is (row,
column) in mm. Lengths are in mm, areas in mm2, volumes in mL, fractions in percent, none rounded.
How base and apex are found: `heartseg.metrics.chamber`. What cannot be measured is a ValueError
that says why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from heartseg.datasets.camus import PHASES, VIEWS, Camus
from heartseg.metrics import Spacing
from heartseg.metrics.chamber import Chamber, largest_part, left_atrium, left_ventricle

DISKS = 20
MM3_PER_ML = 1000.0

Masks = Mapping[tuple[str, str], tuple[np.ndarray, Spacing]]  # labels, spacing by (view, phase)


def long_axis_length(labels: np.ndarray, spacing: Spacing) -> float:
    """Distance in mm from the LV's apex to the middle of its base, the border on the left atrium.

    Raises:
        ValueError: no LV, or one too small to have a long axis.
    """
    return left_ventricle(labels, spacing).length


def biplane_volume(
    labels_2ch: np.ndarray,
    spacing_2ch: Spacing,
    labels_4ch: np.ndarray,
    spacing_4ch: Spacing,
    *,
    disks: int = DISKS,
    length: float | None = None,
) -> float:
    """LV volume in mL by the biplane method of disks: pi / 4 * sum of a_i * b_i * length / disks.

    a_i and b_i are the two views' diameters in the middle of `disks` equal parts of each view's
    own long axis (Lang et al. 2015, section 1.2). The disks' common height is `length` (mm) /
    disks; with None, the length is the longer of these two views' long axes.

    Raises:
        ValueError: a view has no LV, or one too small; `disks` or `length` is not positive.
    """
    two = left_ventricle(labels_2ch, spacing_2ch)
    four = left_ventricle(labels_4ch, spacing_4ch)
    return disk_volume(two, four, disks=disks, length=length)


def area_length_volume(labels: np.ndarray, spacing: Spacing) -> float:
    """LV volume in mL from one view: 8 A^2 / (3 pi L), A the cavity's area, L its long axis.

    Exact for a spheroid and for a half one cut at its equator (Dodge et al., Am Heart J 60,
    1960).

    Raises:
        ValueError: no LV, or one too small to have a long axis.
    """
    view = left_ventricle(labels, spacing)
    return area_length(view.area, view.area, view.length)


def ejection_fraction(edv: float, esv: float) -> float:
    """Ejection fraction in percent from end-diastolic and end-systolic volume.

    Raises:
        ValueError: the end-diastolic volume is not positive.
    """
    return 100.0 * stroke_volume(edv, esv) / edv


def stroke_volume(edv: float, esv: float) -> float:
    """End-diastolic minus end-systolic volume, in their unit.

    Raises:
        ValueError: the end-diastolic volume is not positive.
    """
    if not edv > 0:
        raise ValueError(f"end-diastolic volume must be positive, got {edv}")
    return edv - esv


def lv_area(labels: np.ndarray, spacing: Spacing) -> float:
    """Area of the LV's cavity in mm2: its largest part, holes filled.

    Raises:
        ValueError: no LV, or one too small.
    """
    return left_ventricle(labels, spacing).area


def myocardial_area(labels: np.ndarray, spacing: Spacing) -> float:
    """Area of the LV's myocardium in mm2: its largest part, holes not filled.

    Raises:
        ValueError: no myocardium.
    """
    wall = largest_part(np.asarray(labels) == Camus.MYO)
    if not wall.any():
        raise ValueError("no MYO in the label map, so it has no area")
    return float(wall.sum() * spacing[0] * spacing[1])


def la_area(labels: np.ndarray, spacing: Spacing) -> float:
    """Area of the left atrium in mm2: its largest part, holes filled.

    Raises:
        ValueError: no LA, or no LV at it.
    """
    return left_atrium(labels, spacing).area


def la_volume(
    labels_2ch: np.ndarray,
    spacing_2ch: Spacing,
    labels_4ch: np.ndarray,
    spacing_4ch: Spacing,
    *,
    method: Literal["area_length", "disks"] = "area_length",
) -> float:
    """LA volume in mL from both views (Lang et al. 2015, part III); at end-systole its largest.

    "area_length": 8 A_2ch A_4ch / (3 pi L) with the shorter of the two long axes, from the middle
    of the mitral annulus to the roof. "disks": the biplane method of disks.

    Raises:
        ValueError: a view has no LA, or no LV at it.
    """
    two, four = left_atrium(labels_2ch, spacing_2ch), left_atrium(labels_4ch, spacing_4ch)
    if method == "disks":
        return disk_volume(two, four)
    return area_length(two.area, four.area, min(two.length, four.length))


def disk_volume(
    two: Chamber, four: Chamber, *, disks: int = DISKS, length: float | None = None
) -> float:
    """`biplane_volume` of two views of a chamber that is measured already."""
    if disks < 1:
        raise ValueError(f"disks must be at least 1, got {disks}")
    if length is None:
        length = max(two.length, four.length)
    if not 0 < length < math.inf:
        raise ValueError(f"length must be positive (mm), got {length}")
    areas = math.pi / 4 * two.diameters(disks) * four.diameters(disks)
    return float(areas.sum() * length / disks) / MM3_PER_ML


def area_length(area: float, other_area: float, length: float) -> float:
    """8 A B / (3 pi L) in mL, of areas in mm2 and a length in mm."""
    return 8 * area * other_area / (3 * math.pi * length) / MM3_PER_ML


def biplane_ef(masks: Masks) -> float:
    """Compute the biplane ejection fraction of a patient in percent.

    Each phase has its own long axis. NaN if a view or a phase is absent or cannot be measured.
    """
    if any((view, phase) not in masks for view in VIEWS for phase in PHASES):
        return np.nan
    lv = {key: measured_or_none(left_ventricle, *mask) for key, mask in masks.items()}
    return measured_or_nan(ejection_fraction, *(phase_volume(lv, phase) for phase in PHASES))


def phase_volume(
    lv: Mapping[tuple[str, str], Chamber | None], phase: str, length: float | None = None
) -> float:
    """Compute the biplane LV volume of a phase in mL; NaN if a view has no chamber."""
    two, four = lv["2CH", phase], lv["4CH", phase]
    return disk_volume(two, four, length=length) if two and four else np.nan


def measured_or_none(
    measurement: Callable[..., Chamber], labels: np.ndarray, spacing: Spacing
) -> Chamber | None:
    """Return the chamber of a mask; None if there is none, which summaries count as missing."""
    try:
        return measurement(labels, spacing)
    except ValueError:
        return None


def measured_or_nan(measurement: Callable[..., float], *arguments: Any) -> float:
    """Return the value of a measurement; NaN if it cannot be made."""
    try:
        return measurement(*arguments)
    except ValueError:
        return np.nan
