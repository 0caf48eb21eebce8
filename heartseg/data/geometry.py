"""Scale, orientation and time of the frames of a file, and whether they are plausible.

Frames in memory are (T, H, W). Rows run away from the probe, columns to the right of the image. The
CAMUS release stores them as (lateral, depth) with an affine of diag(-sx, -sy, 1), which nibabel
describes as L, P, S. A file with another affine is reoriented to these axes when it is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from heartseg.errors import InputError

Spacing = tuple[float, float]

IMAGE_SIDE_MM = (5.0, 450.0)
"""Smallest and largest plausible side of an image of a heart. Mouse probes image 7 to 20 mm deep.
Adult cardiac probes reach 30 cm, and a sector of 90 degrees is 1.4 times as wide as deep: 42 cm.
The images of the CAMUS release are up to 300 x 364 mm, including the empty corners beside the
sector."""
MAX_PIXEL_ASPECT = 4.0
"""Largest plausible ratio of the sides of a pixel. The original CAMUS pixels were 2:1. A larger
ratio is a mistake in one header field."""
MIN_TIME_STEP = 1e-4
"""Smallest plausible time per frame in seconds. Ultrafast imaging takes a few thousand frames per
second."""
SCALE_TOLERANCE = 0.01
"""Relative difference from which two scales are different."""
MIN_AXIS_COSINE = math.cos(math.radians(35))
"""Smallest cosine between an axis of a file and the nearest body axis. Near 45 degrees, rounding
would decide which body axis is the nearest."""
ASSUMED_AXES = "its axes are assumed to be those of the CAMUS release (lateral, depth)"


@dataclass(frozen=True)
class Geometry:
    """Scale, orientation and time of the frames of a file.

    Attributes:
        spacing: (row, column) in mm per pixel; None if no plausible scale is known.
        scale_problem: Reason why `spacing` is None, as a clause about the file ("states no
            scale"); "" otherwise.
        source: Source of the scale: "file", "given", or "" if there is no scale.
        oriented: Whether the file states an orientation.
        affine: Affine that maps (column, row, slice, 1) of the frames in memory to mm (R, A, S), as
            the 16 numbers of its rows; None unless the file states an orientation.
        time_per_frame: Seconds per frame; None if it is unknown or there is only one frame.
    """

    spacing: Spacing | None = None
    scale_problem: str = ""
    source: str = ""
    oriented: bool = False
    affine: tuple[float, ...] | None = None
    time_per_frame: float | None = None


def find_scale_problem(spacing: Sequence[float], shape: Sequence[int]) -> str:
    """Return why a scale is implausible, as a clause about the file, or "" if it is plausible.

    Args:
        spacing: (row, column) in mm per pixel, as stated in the file.
        shape: (H, W) of the whole image.
    """
    row, column = (float(step) for step in spacing)
    stated = f"{row:.4g} x {column:.4g} mm per pixel (row x column)"
    if not all(0 < step < math.inf for step in (row, column)):
        return f"states a scale of {stated}"
    if row == column == 1:
        return "states exactly 1 mm per pixel, which programs write if the scale is unknown"
    if max(row, column) > MAX_PIXEL_ASPECT * min(row, column):
        return (
            f"states a scale of {stated}, of which one side is more than {MAX_PIXEL_ASPECT:g} "
            "times the other"
        )
    height, width = row * shape[0], column * shape[1]
    least, most = IMAGE_SIDE_MM
    if not (least <= height <= most and least <= width <= most):
        return (
            f"states a scale of {stated}, so the image would be {height:.3g} mm high and "
            f"{width:.3g} mm wide, while images of hearts are {least:g} to {most:g} mm"
        )
    return ""


def plausible_time_step(seconds: float) -> float | None:
    """Return the time per frame if it is plausible, else None."""
    return seconds if MIN_TIME_STEP < seconds < 1 else None


def make_geometry(
    spacing: Sequence[float] | None, shape: Sequence[int], scale_problem: str = "", **more: object
) -> Geometry:
    """Return the geometry of a file, with its scale if this is plausible.

    Args:
        spacing: (row, column) in mm per pixel, as stated in the file; None if it states none.
        shape: (H, W) of the whole image.
        scale_problem: Problem of the scale that is already known, or "".
        more: Other attributes of `Geometry`.
    """
    if spacing is None:
        scale_problem = scale_problem or "states no scale"
    else:
        scale_problem = scale_problem or find_scale_problem(spacing, shape)
    if scale_problem or spacing is None:
        return Geometry(scale_problem=scale_problem, **more)  # type: ignore[arg-type]
    pair = (float(spacing[0]), float(spacing[1]))
    return Geometry(spacing=pair, source="file", **more)  # type: ignore[arg-type]


# --- order and direction of the axes ------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """Conversion of a stored array to frames (T, H, W), and of label maps to a stored array.

    Attributes:
        shape: Shape of the stored array.
        time, row, column: Numbers of the axes of the stored array.
        flipped: Those of `row` and `column` whose direction is reversed.
        oriented: Whether the affine of the file determines the layout.
        note: Note on an unusual layout, or "".
    """

    shape: tuple[int, ...]
    time: int
    row: int
    column: int
    flipped: tuple[int, ...] = ()
    oriented: bool = False
    note: str = ""

    @property
    def _padded(self) -> tuple[int, ...]:
        return (*self.shape, *(1,) * (self.time + 1 - len(self.shape)))

    @property
    def _order(self) -> list[int]:
        first = [self.time, self.row, self.column]
        return first + [axis for axis in range(len(self._padded)) if axis not in first]

    @property
    def _flipped_axes(self) -> tuple[int, ...]:
        """Axes of the frames (T, H, W) that are flipped."""
        return tuple({self.row: 1, self.column: 2}[axis] for axis in self.flipped)

    def to_frames(self, stored: np.ndarray) -> np.ndarray:
        """Convert an array of shape `shape` to frames (T, H, W)."""
        frames = stored.reshape(self._padded).transpose(self._order)
        return np.flip(frames.reshape(frames.shape[:3]), self._flipped_axes)

    def to_stored(self, maps: np.ndarray) -> np.ndarray:
        """Convert maps (K, H, W) to an array on the grid of the file, of shape `shape` if K = T."""
        padded, order = self._padded, self._order
        turned = np.flip(maps, self._flipped_axes)
        turned = turned.reshape(*turned.shape, *(1,) * (len(padded) - 3))
        stored = turned.transpose(np.argsort(order))
        return stored.reshape(self.shape) if stored.size == math.prod(self.shape) else stored

    def affine_of(self, affine: np.ndarray) -> tuple[float, ...]:
        """Convert the affine (4, 4) of the stored array to `Geometry.affine`."""
        turned = np.array(affine, float)
        for axis in self.flipped:
            turned[:3, 3] += turned[:3, axis] * (self.shape[axis] - 1)
            turned[:3, axis] *= -1
        through = 3 - self.row - self.column
        turned = turned[:, [self.column, self.row, through, 3]]
        return tuple(turned.ravel().tolist())


def find_layout(shape: Sequence[int], affine: np.ndarray | None) -> Layout:
    """Find which axes of a stored array are time, rows and columns, and their directions.

    Time is the fourth axis, or the third one if the first three axes are all longer than 1. Columns
    run to L and rows to P, as in the CAMUS release. In a coronal or sagittal plane, columns run to
    L or P and rows to I, which is the radiological convention.

    Args:
        shape: Shape of the stored array.
        affine: Affine (4, 4) that maps the first three axes to mm (R, A, S); None if the file
            states none.

    Raises:
        InputError: The array is neither an image nor a sequence of images.
    """
    shape = tuple(int(size) for size in shape)
    sizes = (*shape, *(1,) * (3 - len(shape)))
    long = [axis for axis, size in enumerate(sizes) if size > 1]
    if len(shape) < 2 or 0 in shape or len(long) > 3 or any(axis > 2 for axis in long[:2]):
        raise InputError(
            f"has shape {shape}, but must be a 2-D image, or a 3-D array with time as its last "
            "axis. Export one plane of it"
        )
    through = next((axis for axis in (2, 1, 0) if sizes[axis] == 1), 2)
    time = next((axis for axis in long if axis > 2), through)
    column, row = (axis for axis in range(3) if axis != through)
    if affine is None:
        return Layout(shape, time, row, column, note=f"states no orientation; {ASSUMED_AXES}")
    directions, problem = _directions(affine, (column, row))
    if problem:
        return Layout(shape, time, row, column, note=f"{problem}; {ASSUMED_AXES}")
    (world_column, _), (world_row, _) = directions
    if world_column > world_row:
        column, row, directions = row, column, directions[::-1]
    flipped = tuple(
        axis for axis, (_, sign) in zip((column, row), directions, strict=True) if sign > 0
    )
    return Layout(shape, time, row, column, flipped, True, _note_on_axes(row, column, directions))


def _directions(affine: np.ndarray, axes: tuple[int, int]) -> tuple[list[tuple[int, int]], str]:
    """Return (body axis, sign) of each image axis, or [] and the reason as a clause."""
    from nibabel.orientations import io_orientation

    steps = np.asarray(affine, float)[:3, list(axes)]
    plane = np.zeros((4, 3))
    plane[:3, :2] = steps / np.maximum(np.linalg.norm(steps, axis=0), np.finfo(float).tiny)
    plane[3, 2] = 1
    found = io_orientation(plane) if np.isfinite(plane).all() else np.full((2, 2), np.nan)
    if not np.isfinite(found).all():
        return [], "has an affine without directions"
    directions = [(int(world), int(sign)) for world, sign in found]
    aligned = min(abs(plane[world, n]) for n, (world, _) in enumerate(directions))
    if aligned < MIN_AXIS_COSINE:
        angle = math.degrees(math.acos(aligned))
        return [], f"is rotated by {angle:.0f} degrees against the body axes"
    return directions, ""


def _note_on_axes(row: int, column: int, directions: Sequence[tuple[int, int]]) -> str:
    """Return a note on the stored axes, or "" if they are those of the CAMUS release."""
    letters = [("LR", "PA", "IS")[world][sign > 0] for world, sign in directions]
    if row > column and letters == ["L", "P"]:
        return ""
    stored = letters if row > column else letters[::-1]
    axes = f"is stored with the axes {', '.join(stored)} according to its affine"
    if {world for world, _ in directions} == {0, 1}:
        return f"{axes}; it is reoriented to L, P"
    return f"{axes}, which is not a transverse plane; columns are read towards L or P, rows to I"
