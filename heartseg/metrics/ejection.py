"""Left ventricular volume and ejection fraction by the biplane method of disks.

Modified Simpson's rule: Lang et al., "Recommendations for Cardiac Chamber Quantification by
Echocardiography in Adults", JASE 28, 2015, section 1.2 ("biplane method of disks summation").
Label maps are (H, W) with the values of `heartseg.data.labels.Camus`; spacing is (row, column)
in mm. All geometry is done in mm, so pixels need not be square.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from heartseg.data.labels import Camus
from heartseg.metrics import Spacing

BORDER_MM = 1.0
"""The LV's contour up to this much farther from the atrium than its closest point is the base."""
SEAM_MM = 5.0
"""An atrium farther away than this is not at the LV; a prediction may leave a seam between."""
HINGE_MM = 1.0
"""The base's points this close to one of its ends are averaged."""
BASE_PART = 0.05
"""Without an atrium: this lowest part of the LV's principal axis is taken for the base."""
SAMPLES_PER_PIXEL = 4
SHORTEST_MM = 5.0
"""No ventricle has a shorter long axis: stray pixels taken for one would give an absurd EF."""


@dataclass(frozen=True)
class Ventricle:
    """One view's cleaned cavity and its long axis; points are (row, column) in mm."""

    cavity: np.ndarray  # bool (h, w), cropped, with a margin of background
    spacing: Spacing
    apex: np.ndarray
    base: np.ndarray

    @property
    def length(self) -> float:
        """Length of the long axis in mm."""
        return float(np.linalg.norm(self.base - self.apex))


def long_axis_length(labels: np.ndarray, spacing: Spacing) -> float:
    """Distance in mm from the LV's apex to the midpoint of its base.

    The base is the LV's contour along the left atrium, its midpoint lies halfway between the
    two points of it that are farthest apart (the annulus' hinges). Where there is no atrium at
    the LV, the base is the lower end of the LV's principal axis (the apex is up in apical views).
    The apex is the contour's point farthest from the base's midpoint.

    Raises:
        ValueError: `labels` has no LV, or one too small to have a long axis (`SHORTEST_MM`).
    """
    return _ventricle(labels, spacing).length


def biplane_volume(
    labels_2ch: np.ndarray,
    spacing_2ch: Spacing,
    labels_4ch: np.ndarray,
    spacing_4ch: Spacing,
    *,
    disks: int = 20,
    length: float | None = None,
) -> float:
    """LV volume in mL: pi / 4 * sum of a_i * b_i * length / disks (Lang et al. 2015).

    a_i and b_i are the two views' diameters at the centres of `disks` equal parts of each
    view's own long axis. The disks' common height is `length` (mm) / disks; with None, the
    length is the longer of these two views' long axes.

    Raises:
        ValueError: a view has no LV, or one too small; the caller counts this as a failure.
    """
    two, four = _ventricle(labels_2ch, spacing_2ch), _ventricle(labels_4ch, spacing_4ch)
    return _volume(two, four, disks, max(two.length, four.length) if length is None else length)


def ejection_fraction(edv: float, esv: float) -> float:
    """Ejection fraction in percent from end-diastolic and end-systolic volume.

    Raises:
        ValueError: the end-diastolic volume is not positive.
    """
    if not edv > 0:
        raise ValueError(f"end-diastolic volume must be positive, got {edv}")
    return 100.0 * (edv - esv) / edv


def release_ejection_fraction(
    ed_2ch: np.ndarray,
    es_2ch: np.ndarray,
    spacing_2ch: Spacing,
    ed_4ch: np.ndarray,
    es_4ch: np.ndarray,
    spacing_4ch: Spacing,
    *,
    disks: int = 20,
) -> float:
    """Ejection fraction in percent as the CAMUS release computed it for Info_*.cfg.

    Both phases share one disk height, that of the longest of the four long axes, so the
    ventricle's shortening along its axis does not count (Leclerc et al., IEEE TMI 38(9),
    2019, and the script that comes with the release).

    Raises:
        ValueError: an image has no LV, or one too small.
    """
    two = [_ventricle(labels, spacing_2ch) for labels in (ed_2ch, es_2ch)]
    four = [_ventricle(labels, spacing_4ch) for labels in (ed_4ch, es_4ch)]
    length = max(view.length for view in (*two, *four))
    edv, esv = (_volume(a, b, disks, length) for a, b in zip(two, four, strict=True))
    return ejection_fraction(edv, esv)


def _volume(two: Ventricle, four: Ventricle, disks: int, length: float) -> float:
    areas = np.pi / 4 * _diameters(two, disks) * _diameters(four, disks)
    return float(areas.sum() * length / disks) / 1000.0  # mm^3 to mL


def _ventricle(labels: np.ndarray, spacing: Spacing) -> Ventricle:
    cavity = _largest(labels == Camus.LV)
    if not cavity.any():
        raise ValueError("no LV in the label map, so it has neither long axis nor volume")
    window = _window(cavity, margin=int(np.ceil((SEAM_MM + BORDER_MM) / min(spacing))))
    atrium = np.pad(_largest(labels == Camus.LA)[window], 1)
    cavity = ndimage.binary_fill_holes(np.pad(cavity[window], 1))
    contour = _contour(cavity)
    points = contour * spacing
    away = _distances(atrium, contour, spacing)
    at_atrium = away.min() <= SEAM_MM
    border = points[away <= away.min() + BORDER_MM] if at_atrium else _lower_end(points)
    base = _middle_of_ends(border)
    apex = points[np.argmax(np.linalg.norm(points - base, axis=1))]
    ventricle = Ventricle(cavity, spacing, apex, base)
    if ventricle.length < SHORTEST_MM:
        raise ValueError("the LV is too small to have a long axis")
    return ventricle


def _contour(mask: np.ndarray) -> np.ndarray:
    """Points (n, 2) halfway between pixels inside and their 4-neighbours outside, in pixels."""
    down, right = np.argwhere(mask[1:] != mask[:-1]), np.argwhere(mask[:, 1:] != mask[:, :-1])
    return np.concatenate((down + np.array([0.5, 0.0]), right + np.array([0.0, 0.5])))


def _distances(mask: np.ndarray, contour: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Distance (n,) in mm of the contour's points to the mask, infinite where it is empty."""
    if not mask.any():
        return np.full(len(contour), np.inf)
    distance = ndimage.distance_transform_edt(~mask, sampling=spacing)
    return ndimage.map_coordinates(distance, contour.T, order=1)


def _lower_end(points: np.ndarray) -> np.ndarray:
    centred = points - points.mean(axis=0)
    axis = np.linalg.svd(centred, full_matrices=False)[2][0]
    along = centred @ (axis if axis[0] > 0 else -axis)
    return points[along >= along.max() - BASE_PART * np.ptp(along)]


def _middle_of_ends(points: np.ndarray) -> np.ndarray:
    if len(points) == 1:
        return points[0]
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    one, other = np.unravel_index(np.argmax(apart), apart.shape)
    along = points @ (points[other] - points[one]) / apart[one, other]
    ends = points[along <= along.min() + HINGE_MM], points[along >= along.max() - HINGE_MM]
    return (ends[0].mean(axis=0) + ends[1].mean(axis=0)) / 2  # one point's noise counts little


def _diameters(ventricle: Ventricle, disks: int) -> np.ndarray:
    """Diameters (disks,) in mm at the disks' centres, square to the long axis."""
    axis = (ventricle.base - ventricle.apex) / ventricle.length
    across = np.array([-axis[1], axis[0]])
    centres = ventricle.apex + np.outer((np.arange(disks) + 0.5) / disks * ventricle.length, axis)
    step = min(ventricle.spacing) / SAMPLES_PER_PIXEL
    reach = np.hypot(*(np.array(ventricle.cavity.shape) * ventricle.spacing))
    offsets = np.arange(-reach, reach, step)
    samples = centres[:, None] + offsets[:, None] * across  # (disks, samples, 2) in mm
    pixels = np.moveaxis(samples, 2, 0) / np.reshape(ventricle.spacing, (2, 1, 1))
    inside = ndimage.map_coordinates(ventricle.cavity, pixels, order=0)
    return inside.sum(axis=1) * step


def _largest(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a mask: stray islands must not move anything."""
    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return parts == sizes.argmax()


def _window(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
    """The mask's bounding box, wider by a margin, within the image."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (
        slice(max(int(rows[0]) - margin, 0), int(rows[-1]) + margin + 1),
        slice(max(int(columns[0]) - margin, 0), int(columns[-1]) + margin + 1),
    )
