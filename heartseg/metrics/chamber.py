"""Cavity and long axis of a heart chamber in a label map of an apical view.

Label maps are (H, W) with the values of `heartseg.datasets.camus.Camus`; spacing is (row, column)
in mm. All geometry is computed in mm, so that pixels need not be square. The results do not depend
on the orientation of the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from heartseg.datasets.camus import Camus
from heartseg.metrics import Spacing

BORDER_MM = 1.0
"""Contour points belong to the border with a neighbour if their distance to it exceeds the smallest
distance by at most this value."""
MAX_GAP_MM = 5.0
"""Maximum distance between neighbouring chambers. Predictions may leave a gap between them."""
HINGE_MM = 1.0
"""Border points within this distance of one of its ends are averaged."""
SAMPLES_PER_PIXEL = 4
"""Sampling rate along lines through the cavity."""
MIN_LENGTH_MM = 5.0
"""Minimum length of a ventricle's long axis. Stray pixels would give an absurd EF."""


@dataclass(frozen=True)
class Chamber:
    """Cavity and long axis in one view. Points are (row, column) in mm in the cropped cavity."""

    cavity: np.ndarray
    """bool (h, w): largest component with filled holes, cropped with a margin of background."""
    spacing: Spacing
    """(row, column) in mm."""
    base: np.ndarray
    """Centre of the mitral annulus."""
    end: np.ndarray
    """The other end of the long axis: apex of the LV, roof of the LA."""

    @property
    def length(self) -> float:
        """Length of the long axis in mm."""
        return float(np.linalg.norm(self.base - self.end))

    @property
    def area(self) -> float:
        """Area of the cavity in mm2."""
        return float(self.cavity.sum() * self.spacing[0] * self.spacing[1])

    def diameters(self, disks: int) -> np.ndarray:
        """Measure diameters perpendicular to the long axis.

        Args:
            disks: Number of equal segments of the axis.

        Returns:
            Diameter in mm at the centre of each segment (disks,).
        """
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
    """Find cavity and long axis of the LV.

    The base is the border of the cavity with the left atrium. Its centre is halfway between its two
    points that are farthest apart (the hinges of the annulus). Without an adjacent atrium, it is
    where the principal axis leaves the cavity on its wider side. The apex is the point of the
    contour farthest from the centre of the base.

    Args:
        labels: Label map (H, W).
        spacing: (row, column) in mm.

    Raises:
        ValueError: The shape or the spacing is wrong, or there is no LV, or its long axis is
            shorter than `MIN_LENGTH_MM`.
    """
    labels, spacing = _checked(labels, spacing)
    cavity, atrium = _cropped(labels, spacing, Camus.LV, Camus.LA)
    points = contour(cavity) * spacing
    base = _middle_of_border(cavity, atrium, spacing)
    if base is None:
        base = _wider_end(cavity, points, spacing)
    apex = points[np.argmax(np.linalg.norm(points - base, axis=1))]
    chamber = Chamber(cavity, spacing, base, apex)
    if chamber.length < MIN_LENGTH_MM:
        raise ValueError(
            f"the LV is too small to have a long axis: {chamber.length:.2g} mm, "
            f"at least {MIN_LENGTH_MM:g} mm are needed"
        )
    return chamber


def left_atrium(labels: np.ndarray, spacing: Spacing) -> Chamber:
    """Find cavity and long axis of the LA.

    The base is the centre of the border with the LV. The axis leads from there through the centre
    of the cavity to the opposite wall (the roof).

    Args:
        labels: Label map (H, W).
        spacing: (row, column) in mm.

    Raises:
        ValueError: The shape or the spacing is wrong, or there is no LA, or no LV adjacent to it,
            which determines the mitral annulus.
    """
    labels, spacing = _checked(labels, spacing)
    cavity, ventricle = _cropped(labels, spacing, Camus.LA, Camus.LV)
    base = _middle_of_border(cavity, ventricle, spacing)
    if base is None:
        raise ValueError("no LV adjacent to the LA, so its mitral annulus is unknown")
    centre = _centre(cavity, spacing)
    return Chamber(cavity, spacing, base, _ray_end(cavity, centre, centre - base, spacing))


def largest_component(mask: np.ndarray) -> np.ndarray:
    """Return the largest 4-connected component of a boolean mask (H, W)."""
    components, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    return components == sizes.argmax()


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Fill the holes of a boolean mask (H, W): background that is not 4-connected to the border."""
    background, _ = ndimage.label(~np.pad(mask, 1))
    return (background != background[0, 0])[1:-1, 1:-1]


def contour(mask: np.ndarray) -> np.ndarray:
    """Return the points halfway between pixels inside and their 4-neighbours outside.

    Args:
        mask: bool (H, W). It must not touch the edge of the array.

    Returns:
        Points (n, 2) in pixels.
    """
    down, right = np.argwhere(mask[1:] != mask[:-1]), np.argwhere(mask[:, 1:] != mask[:, :-1])
    return np.concatenate((down + np.array([0.5, 0.0]), right + np.array([0.0, 0.5])))


def distances(mask: np.ndarray, points: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Compute the distances of points to a mask.

    Args:
        mask: bool (H, W).
        points: (n, 2) in pixels.
        spacing: (row, column) in mm.

    Returns:
        Distances (n,) in mm; infinity if the mask is empty.
    """
    if not mask.any():
        return np.full(len(points), np.inf)
    distance = ndimage.distance_transform_edt(~mask, sampling=spacing)
    return ndimage.map_coordinates(distance, points.T, order=1)


def _checked(labels: np.ndarray, spacing: Spacing) -> tuple[np.ndarray, Spacing]:
    """Convert label map and spacing, and raise a ValueError if they are not valid."""
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
    """Crop the structure's largest component, filled, and its neighbour's largest component."""
    cavity = largest_component(labels == structure)
    if not cavity.any():
        raise ValueError(
            f"no {structure.name} in the label map, so its long axis and volume are unknown"
        )
    margin = int(np.ceil((MAX_GAP_MM + BORDER_MM) / min(spacing)))
    rows, columns = np.flatnonzero(cavity.any(1)), np.flatnonzero(cavity.any(0))
    window = (
        slice(max(int(rows[0]) - margin, 0), int(rows[-1]) + margin + 1),
        slice(max(int(columns[0]) - margin, 0), int(columns[-1]) + margin + 1),
    )
    around = np.pad(largest_component(labels == neighbour)[window], 1)
    return fill_holes(np.pad(cavity[window], 1)), around


def _middle_of_border(
    cavity: np.ndarray, neighbour: np.ndarray, spacing: Spacing
) -> np.ndarray | None:
    """Return the centre of the border with a neighbour; None if the neighbour is not adjacent."""
    pixels = contour(cavity)
    distance = distances(neighbour, pixels, spacing)
    if distance.min() > MAX_GAP_MM:
        return None
    border = pixels[distance <= distance.min() + BORDER_MM] * spacing
    apart = np.linalg.norm(border[:, None] - border[None], axis=2)
    one, other = np.unravel_index(np.argmax(apart), apart.shape)
    along = border @ (border[other] - border[one]) / max(apart[one, other], 1e-9)
    ends = border[along <= along.min() + HINGE_MM], border[along >= along.max() - HINGE_MM]
    return (
        ends[0].mean(axis=0) + ends[1].mean(axis=0)
    ) / 2  # the means reduce the noise of single points


def _wider_end(cavity: np.ndarray, points: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Return where the principal axis leaves the cavity on the side nearer to its centre."""
    centre = _centre(cavity, spacing)
    axis = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][0]
    ends = [_ray_end(cavity, centre, direction, spacing) for direction in (axis, -axis)]
    return min(ends, key=lambda end: float(np.linalg.norm(end - centre)))


def _centre(mask: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Return the centre of mass of a mask in mm."""
    return np.array(ndimage.center_of_mass(mask)) * spacing


def _ray_end(
    cavity: np.ndarray, start: np.ndarray, direction: np.ndarray, spacing: Spacing
) -> np.ndarray:
    """Return the last point of a ray inside the cavity, in mm."""
    step = min(spacing) / SAMPLES_PER_PIXEL
    reach = np.hypot(*(np.array(cavity.shape) * spacing))
    ray = start + np.outer(np.arange(0, reach, step), direction / np.linalg.norm(direction))
    inside = ndimage.map_coordinates(cavity, (ray / spacing).T, order=0)
    return ray[np.flatnonzero(inside)[-1]] if inside.any() else start
