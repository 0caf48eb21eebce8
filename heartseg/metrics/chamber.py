"""A heart chamber in a label map of an apical view: its cavity and its long axis, in mm.

Label maps are (H, W) with the values of `heartseg.datasets.camus.Camus`; spacing is (row, column)
in mm. All geometry is done in mm, so pixels need not be square, and nothing depends on which way
the image is turned or flipped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from heartseg.datasets.camus import Camus
from heartseg.metrics import Spacing

BORDER_MM = 1.0
"""A contour up to this much farther from its neighbour than its closest point borders on it."""
SEAM_MM = 5.0
"""A chamber farther away than this is no neighbour; a prediction may leave a seam between."""
HINGE_MM = 1.0
"""The border's points this close to one of its ends are averaged."""
SAMPLES_PER_PIXEL = 4
SHORTEST_MM = 5.0
"""No ventricle has a shorter long axis: stray pixels taken for one would give an absurd EF."""


@dataclass(frozen=True)
class Chamber:
    """One view's cavity and its long axis; points are (row, column) in mm of the crop."""

    cavity: np.ndarray
    """bool (h, w): the largest part, holes filled, cropped, with a margin of background."""
    spacing: Spacing
    base: np.ndarray
    """Middle of the mitral annulus."""
    end: np.ndarray
    """The other end of the long axis: the LV's apex, the LA's roof."""

    @property
    def length(self) -> float:
        """Length of the long axis in mm."""
        return float(np.linalg.norm(self.base - self.end))

    @property
    def area(self) -> float:
        """Area of the cavity in mm2."""
        return float(self.cavity.sum() * self.spacing[0] * self.spacing[1])

    def diameters(self, disks: int) -> np.ndarray:
        """Diameters (disks,) in mm, square to the long axis, in the middle of equal parts of it."""
        axis = (self.base - self.end) / self.length
        across = np.array([-axis[1], axis[0]])
        centres = self.end + np.outer((np.arange(disks) + 0.5) / disks * self.length, axis)
        step = min(self.spacing) / SAMPLES_PER_PIXEL
        reach = np.hypot(*(np.array(self.cavity.shape) * self.spacing))
        offsets = np.arange(-reach, reach, step)
        samples = centres[:, None] + offsets[:, None] * across  # (disks, samples, 2) in mm
        pixels = np.moveaxis(samples, 2, 0) / np.reshape(self.spacing, (2, 1, 1))
        inside = ndimage.map_coordinates(self.cavity, pixels, order=0)
        return inside.sum(axis=1) * step


def left_ventricle(labels: np.ndarray, spacing: Spacing) -> Chamber:
    """The LV of a label map (H, W); the far end of its axis is the apex.

    The base is the cavity's border on the left atrium: its middle lies halfway between the two
    points of it that are farthest apart (the annulus' hinges). Where no atrium lies at the LV,
    the base is where the principal axis leaves the cavity on its wider side. The apex is the
    contour's point farthest from the base's middle.

    Raises:
        ValueError: no (H, W) map or no spacing in mm; no LV, or one too small to have a long
            axis (`SHORTEST_MM`).
    """
    labels, spacing = _checked(labels, spacing)
    cavity, atrium = _cropped(labels, spacing, Camus.LV, Camus.LA)
    points = contour(cavity) * spacing
    base = _middle_of_border(cavity, atrium, spacing)
    if base is None:
        base = _wide_end(cavity, points, spacing)
    apex = points[np.argmax(np.linalg.norm(points - base, axis=1))]
    return _with_long_axis(Chamber(cavity, spacing, base, apex), "LV")


def left_atrium(labels: np.ndarray, spacing: Spacing) -> Chamber:
    """The LA of a label map (H, W); the far end of its axis is the roof.

    The base is the middle of its border on the LV; the axis runs from there through the
    cavity's centre to the far wall.

    Raises:
        ValueError: no (H, W) map or no spacing in mm; no LA, or one too small to have a long axis
            (`SHORTEST_MM`), or no LV at it, without which the mitral annulus cannot be told.
    """
    labels, spacing = _checked(labels, spacing)
    cavity, ventricle = _cropped(labels, spacing, Camus.LA, Camus.LV)
    base = _middle_of_border(cavity, ventricle, spacing)
    if base is None:
        raise ValueError("no LV at the LA, so its mitral annulus cannot be told")
    centre = _centre(cavity, spacing)
    direction = centre - base
    roof = _exit(cavity, centre, direction, spacing) if direction.any() else base
    return _with_long_axis(Chamber(cavity, spacing, base, roof), "LA")


def _with_long_axis(chamber: Chamber, name: str) -> Chamber:
    """Refuse a chamber that is too small to have a long axis."""
    if chamber.length < SHORTEST_MM:
        raise ValueError(
            f"the {name} is too small to have a long axis: {chamber.length:.2g} mm, "
            f"at least {SHORTEST_MM:g} mm are needed"
        )
    return chamber


def largest_part(mask: np.ndarray) -> np.ndarray:
    """The largest 4-connected part of a mask: stray islands must not move anything."""
    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return parts == sizes.argmax()


def filled(mask: np.ndarray) -> np.ndarray:
    """The mask without holes: background that no way of 4-neighbours leads out of."""
    background, _ = ndimage.label(~np.pad(mask, 1))
    return (background != background[0, 0])[1:-1, 1:-1]


def contour(mask: np.ndarray) -> np.ndarray:
    """Points (n, 2) halfway between pixels inside and their 4-neighbours outside, in pixels.

    The mask must not touch the array's edge.
    """
    down, right = np.argwhere(mask[1:] != mask[:-1]), np.argwhere(mask[:, 1:] != mask[:, :-1])
    return np.concatenate((down + np.array([0.5, 0.0]), right + np.array([0.0, 0.5])))


def distances(mask: np.ndarray, points: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Distance (n,) in mm of points (n, 2), in pixels, to a mask; infinite where it is empty."""
    if not mask.any():
        return np.full(len(points), np.inf)
    distance = ndimage.distance_transform_edt(~mask, sampling=spacing)
    return ndimage.map_coordinates(distance, points.T, order=1)


def _checked(labels: np.ndarray, spacing: Spacing) -> tuple[np.ndarray, Spacing]:
    labels = np.asarray(labels)
    if labels.ndim != 2:
        raise ValueError(f"labels must be (H, W), got shape {labels.shape}")
    row, column = (float(step) for step in spacing)
    if not (0 < row < np.inf and 0 < column < np.inf):
        raise ValueError(f"spacing must be (row, column) in mm and positive, got {spacing}")
    return labels, (row, column)


def _cropped(
    labels: np.ndarray, spacing: Spacing, structure: Camus, neighbour: Camus
) -> tuple[np.ndarray, np.ndarray]:
    """The structure's largest part, filled, and its neighbour's largest part around it."""
    cavity = largest_part(labels == structure)
    if not cavity.any():
        raise ValueError(
            f"no {structure.name} in the label map, so it has neither long axis nor volume"
        )
    margin = int(np.ceil((SEAM_MM + BORDER_MM) / min(spacing)))
    rows, columns = np.flatnonzero(cavity.any(1)), np.flatnonzero(cavity.any(0))
    window = (
        slice(max(int(rows[0]) - margin, 0), int(rows[-1]) + margin + 1),
        slice(max(int(columns[0]) - margin, 0), int(columns[-1]) + margin + 1),
    )
    around = np.pad(largest_part(labels == neighbour)[window], 1)
    return filled(np.pad(cavity[window], 1)), around


def _middle_of_border(
    cavity: np.ndarray, neighbour: np.ndarray, spacing: Spacing
) -> np.ndarray | None:
    """Middle of the contour's part along a neighbour; None where there is none at the cavity."""
    pixels = contour(cavity)
    away = distances(neighbour, pixels, spacing)
    if away.min() > SEAM_MM:
        return None
    border = pixels[away <= away.min() + BORDER_MM] * spacing
    apart = np.linalg.norm(border[:, None] - border[None], axis=2)
    one, other = np.unravel_index(np.argmax(apart), apart.shape)
    along = border @ (border[other] - border[one]) / max(apart[one, other], 1e-9)
    ends = border[along <= along.min() + HINGE_MM], border[along >= along.max() - HINGE_MM]
    return (ends[0].mean(axis=0) + ends[1].mean(axis=0)) / 2  # one point's noise counts little


def _wide_end(cavity: np.ndarray, points: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Where the principal axis leaves the cavity on the side that its centre lies nearer to."""
    centre = _centre(cavity, spacing)
    axis = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][0]
    ends = [_exit(cavity, centre, direction, spacing) for direction in (axis, -axis)]
    return min(ends, key=lambda end: float(np.linalg.norm(end - centre)))


def _centre(mask: np.ndarray, spacing: Spacing) -> np.ndarray:
    return np.array(ndimage.center_of_mass(mask)) * spacing


def _exit(
    cavity: np.ndarray, start: np.ndarray, direction: np.ndarray, spacing: Spacing
) -> np.ndarray:
    """The last point of a ray (mm) that lies in the cavity."""
    step = min(spacing) / SAMPLES_PER_PIXEL
    reach = np.hypot(*(np.array(cavity.shape) * spacing))
    ray = start + np.outer(np.arange(0, reach, step), direction / np.linalg.norm(direction))
    inside = ndimage.map_coordinates(cavity, (ray / spacing).T, order=0)
    return ray[np.flatnonzero(inside)[-1]] if inside.any() else start
