"""Volumes, areas and ejection fraction from label maps of apical views.

Lang et al., "Recommendations for Cardiac Chamber Quantification by Echocardiography in Adults",
JASE 28, 2015: part I (left ventricle: biplane disk summation, area-length) and part III (left
atrium). Label maps are (H, W) with the values of `heartseg.datasets.camus.Camus`, spacing is (row,
column) in mm. Lengths are in mm, areas in mm2, volumes in mL, fractions in percent, none rounded.
`heartseg.metrics.chamber` finds base and apex. A ValueError is raised if a value cannot be
measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from heartseg.datasets.camus import PHASES, VIEWS, Camus
from heartseg.metrics import Spacing
from heartseg.metrics.chamber import Chamber, largest_component, left_atrium, left_ventricle

DISKS = 20
"""Number of disks of the biplane method."""
MM3_PER_ML = 1000.0

Masks = Mapping[tuple[str, str], tuple[np.ndarray, Spacing]]
"""Label map and spacing of a patient by (view, phase)."""


def long_axis_length(labels: np.ndarray, spacing: Spacing) -> float:
    """Measure the LV's long axis in mm, from the apex to the centre of the mitral annulus.

    Raises:
        ValueError: There is no LV, or it is too small to have a long axis.
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
    """Compute the LV volume in mL by the biplane method of disks (Lang et al. 2015, section 1.2).

    The volume is pi / 4 * sum(a_i * b_i) * length / disks, with the diameters a_i and b_i of the
    two views at the centre of equal segments of each view's long axis.

    Args:
        labels_2ch: Label map of the two-chamber view (H, W).
        spacing_2ch: (row, column) in mm.
        labels_4ch: Label map of the four-chamber view (H, W).
        spacing_4ch: (row, column) in mm.
        disks: Number of disks.
        length: Length of the long axis in mm; by default the longer one of both views.

    Raises:
        ValueError: The LV is absent or too small in a view, or `disks` or `length` is not positive.
    """
    two = left_ventricle(labels_2ch, spacing_2ch)
    four = left_ventricle(labels_4ch, spacing_4ch)
    return disk_volume(two, four, disks=disks, length=length)


def area_length_volume(labels: np.ndarray, spacing: Spacing) -> float:
    """Compute the LV volume in mL from area A and long axis L of one view as 8 A^2 / (3 pi L).

    The formula is exact for a spheroid and for half a spheroid cut at its equator (Dodge et al., Am
    Heart J 60, 1960).

    Raises:
        ValueError: There is no LV, or it is too small to have a long axis.
    """
    view = left_ventricle(labels, spacing)
    return area_length(view.area, view.area, view.length)


def ejection_fraction(edv: float, esv: float) -> float:
    """Compute the ejection fraction in percent from end-diastolic and end-systolic volume.

    Raises:
        ValueError: The end-diastolic volume is not positive.
    """
    return 100.0 * stroke_volume(edv, esv) / edv


def stroke_volume(edv: float, esv: float) -> float:
    """Compute the end-diastolic minus the end-systolic volume, in their unit.

    Raises:
        ValueError: The end-diastolic volume is not positive.
    """
    if not edv > 0:
        raise ValueError(f"end-diastolic volume must be positive, got {edv}")
    return edv - esv


def lv_area(labels: np.ndarray, spacing: Spacing) -> float:
    """Measure the area of the LV's cavity in mm2: largest component with filled holes.

    Raises:
        ValueError: There is no LV, or it is too small.
    """
    return left_ventricle(labels, spacing).area


def myocardial_area(labels: np.ndarray, spacing: Spacing) -> float:
    """Measure the area of the LV's myocardium in mm2: largest component, holes not filled.

    Raises:
        ValueError: There is no myocardium.
    """
    wall = largest_component(np.asarray(labels) == Camus.MYO)
    if not wall.any():
        raise ValueError("no MYO in the label map, so its area is unknown")
    return float(wall.sum() * spacing[0] * spacing[1])


def la_area(labels: np.ndarray, spacing: Spacing) -> float:
    """Measure the area of the left atrium in mm2: largest component with filled holes.

    Raises:
        ValueError: There is no LA, or no LV adjacent to it.
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
    """Compute the LA volume in mL from both views (Lang et al. 2015, part III).

    Use views at end-systole, when the LA is largest.

    Args:
        labels_2ch: Label map of the two-chamber view (H, W).
        spacing_2ch: (row, column) in mm.
        labels_4ch: Label map of the four-chamber view (H, W).
        spacing_4ch: (row, column) in mm.
        method: "area_length": 8 A_2ch A_4ch / (3 pi L) with the shorter of both long axes, from the
            centre of the mitral annulus to the roof; "disks": the biplane method of disks.

    Raises:
        ValueError: A view has no LA, or no LV adjacent to it.
    """
    two, four = left_atrium(labels_2ch, spacing_2ch), left_atrium(labels_4ch, spacing_4ch)
    if method == "disks":
        return disk_volume(two, four)
    return area_length(two.area, four.area, min(two.length, four.length))


def disk_volume(
    two: Chamber, four: Chamber, *, disks: int = DISKS, length: float | None = None
) -> float:
    """Compute the volume in mL by the biplane method of disks; see `biplane_volume`.

    Args:
        two: Chamber in the two-chamber view.
        four: Chamber in the four-chamber view.
        disks: Number of disks.
        length: Length of the long axis in mm; by default the longer one of both views.

    Raises:
        ValueError: `disks` or `length` is not positive.
    """
    if disks < 1:
        raise ValueError(f"disks must be at least 1, got {disks}")
    if length is None:
        length = max(two.length, four.length)
    if not 0 < length < math.inf:
        raise ValueError(f"length must be positive (mm), got {length}")
    areas = math.pi / 4 * two.diameters(disks) * four.diameters(disks)
    return float(areas.sum() * length / disks) / MM3_PER_ML


def area_length(area: float, other_area: float, length: float) -> float:
    """Compute the volume 8 A B / (3 pi L) in mL from areas in mm2 and a length in mm."""
    return 8 * area * other_area / (3 * math.pi * length) / MM3_PER_ML


def biplane_ef(masks: Masks) -> float:
    """Compute the biplane ejection fraction of a patient in percent.

    Each phase has its own long axis. The result is NaN if a view or a phase is absent or cannot be
    measured.
    """
    if any((view, phase) not in masks for view in VIEWS for phase in PHASES):
        return np.nan
    lv = {key: measured_or_none(left_ventricle, *mask) for key, mask in masks.items()}
    return measured_or_nan(ejection_fraction, *(phase_volume(lv, phase) for phase in PHASES))


def phase_volume(
    lv: Mapping[tuple[str, str], Chamber | None], phase: str, length: float | None = None
) -> float:
    """Compute the biplane LV volume of a phase in mL; NaN if a view has no chamber.

    Args:
        lv: Chamber by (view, phase).
        phase: "ED" or "ES".
        length: Length of the long axis in mm; by default the longer one of both views.
    """
    two, four = lv["2CH", phase], lv["4CH", phase]
    return disk_volume(two, four, length=length) if two and four else np.nan


def measured_or_none(
    measurement: Callable[..., Chamber], labels: np.ndarray, spacing: Spacing
) -> Chamber | None:
    """Return the chamber of a label map; None if it cannot be measured."""
    try:
        return measurement(labels, spacing)
    except ValueError:
        return None


def measured_or_nan(measurement: Callable[..., float], *arguments: Any) -> float:
    """Return the value of a measurement; NaN if it raises a ValueError."""
    try:
        return measurement(*arguments)
    except ValueError:
        return np.nan
