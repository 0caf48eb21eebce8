"""How the pixels of a file lie in space and time, and how far the file vouches for that.

Frames in memory are (T, H, W): rows run away from the probe, columns to the image's right. The
CAMUS release stores them as (lateral, depth) with an affine of diag(-sx, -sy, 1), which is L, P, S
in nibabel's terms. A file with another affine is turned into this orientation on reading.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from heartseg.errors import InputError

Spacing = tuple[float, float]

PICTURE_MM = (5.0, 450.0)
"""Sides that a picture of a heart can have. Mouse probes image 7 to 20 mm deep. Adult cardiac
probes reach 30 cm, and a sector of 90 degrees is 1.4 times as wide as deep: 42 cm. The pictures of
the CAMUS release measure up to 300 x 364 mm with the empty corners beside the sector."""
MOST_STRETCHED = 4.0
"""Ratio of a pixel's sides. CAMUS pixels were 2:1 originally; more is a mistake in one field."""
LEAST_STEP = 1e-4
"""Seconds per frame; ultrafast imaging takes a few thousand frames per second."""
SAME_SCALE = 0.01
"""Relative difference from which two scales of one file contradict each other."""
LEAST_ALIGNED = math.cos(math.radians(35))
"""Cosine between an axis of the file and the nearest body axis. Near 45 degrees the nearest one is
an accident of rounding."""
RELEASE = "the CAMUS release (lateral, depth)"
NO_ORIENTATION = f"states no orientation; its axes are taken as those of {RELEASE}"


@dataclass(frozen=True)
class Geometry:
    """Scale, orientation and time of a file's frames.

    Attributes:
        spacing: (row, column) in mm; None if nothing vouches for a scale.
        doubt: why `spacing` is None, as a clause about the file ("states no scale"); "" otherwise.
        source: where the scale comes from: "file" or "given"; "" if there is none.
        oriented: whether the file states an orientation.
        affine: (column, row, slice, 1) of the frames in memory to mm (R, A, S), the 16 numbers of
            its rows; None unless the file states an orientation.
        time_per_frame: seconds; None if the file does not say or has one frame.
    """

    spacing: Spacing | None = None
    doubt: str = ""
    source: str = ""
    oriented: bool = False
    affine: tuple[float, ...] | None = None
    time_per_frame: float | None = None


def scale_doubt(spacing: Sequence[float], shape: Sequence[int]) -> str:
    """Why a scale cannot be believed, as a clause about the file; "" if it can.

    Args:
        spacing: (row, column) in mm as the file states it.
        shape: (H, W) of the whole picture.
    """
    row, column = (float(step) for step in spacing)
    stated = f"{row:.4g} x {column:.4g} mm per pixel (row x column)"
    if not all(0 < step < math.inf for step in (row, column)):
        return f"states a scale of {stated}"
    if row == column == 1:
        return "states exactly 1 mm per pixel, which programs write when they know no scale"
    if max(row, column) > MOST_STRETCHED * min(row, column):
        return f"states a scale of {stated}, which is one of two different scales"
    height, width = row * shape[0], column * shape[1]
    least, most = PICTURE_MM
    if not (least <= height <= most and least <= width <= most):
        return (
            f"states a scale of {stated}, so that its picture would be {height:.3g} mm high and "
            f"{width:.3g} mm wide; pictures of hearts are {least:g} to {most:g} mm"
        )
    return ""


def believed_step(seconds: float) -> float | None:
    """The time per frame if a probe can take so long or short, else None."""
    return seconds if LEAST_STEP < seconds < 1 else None


def geometry_of(
    spacing: Sequence[float] | None, shape: Sequence[int], doubt: str = "", **more: object
) -> Geometry:
    """The geometry of a file with this scale, if it can be believed.

    Args:
        spacing: (row, column) in mm as the file states it; None if it states none.
        shape: (H, W) of the whole picture.
        doubt: a doubt that is known already.
        more: the further attributes of `Geometry`.
    """
    doubt = doubt or ("states no scale" if spacing is None else scale_doubt(spacing, shape))
    if doubt or spacing is None:
        return Geometry(doubt=doubt, **more)  # type: ignore[arg-type]
    pair = (float(spacing[0]), float(spacing[1]))
    return Geometry(spacing=pair, source="file", **more)  # type: ignore[arg-type]


# --- how the axes lie ---------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """How a stored array becomes frames (T, H, W), and label maps a stored array.

    Attributes:
        shape: of the stored array.
        time, row, column: which of its axes these are.
        flipped: those of row and column that run the other way.
        oriented: whether the affine decided this.
        note: on what is unusual, "" if nothing is.
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
    def _turned(self) -> tuple[int, ...]:
        """The flipped axes of the frames."""
        return tuple({self.row: 1, self.column: 2}[axis] for axis in self.flipped)

    def to_frames(self, stored: np.ndarray) -> np.ndarray:
        """Frames (T, H, W) of an array of `shape`."""
        frames = stored.reshape(self._padded).transpose(self._order)
        return np.flip(frames.reshape(frames.shape[:3]), self._turned)

    def to_stored(self, maps: np.ndarray) -> np.ndarray:
        """An array on the file's grid of maps (K, H, W); of `shape` if no frame is left out."""
        padded, order = self._padded, self._order
        turned = np.flip(maps, self._turned)
        turned = turned.reshape(*turned.shape, *(1,) * (len(padded) - 3))
        stored = turned.transpose(np.argsort(order))
        return stored.reshape(self.shape) if stored.size == math.prod(self.shape) else stored

    def affine_of(self, affine: np.ndarray) -> tuple[float, ...]:
        """The affine (4, 4) of the stored array as that of the frames, see `Geometry.affine`."""
        turned = np.array(affine, float)
        for axis in self.flipped:
            turned[:3, 3] += turned[:3, axis] * (self.shape[axis] - 1)
            turned[:3, axis] *= -1
        through = 3 - self.row - self.column
        turned = turned[:, [self.column, self.row, through, 3]]
        return tuple(turned.ravel().tolist())


def find_layout(shape: Sequence[int], affine: np.ndarray | None) -> Layout:
    """Find which axes of a stored array are time, rows and columns, and which way they run.

    Time is the fourth axis, or the third if all of the first three are longer than 1. Of the two
    axes of the picture, columns run to L and rows to P, as in the CAMUS release. In a coronal or
    sagittal plane they run as radiologists see them: columns to L (or P), rows to I.

    Args:
        shape: of the stored array.
        affine: (4, 4), its first three axes to mm (R, A, S); None if the file states none.

    Raises:
        InputError: the array is no picture and no sequence.
    """
    shape = tuple(int(size) for size in shape)
    sizes = (*shape, *(1,) * (3 - len(shape)))
    long = [axis for axis, size in enumerate(sizes) if size > 1]
    if len(shape) < 2 or 0 in shape or len(long) > 3 or any(axis > 2 for axis in long[:2]):
        raise InputError(
            f"has shape {shape}; wanted are 2-D images, or 3-D with time last. "
            "Export one plane of it"
        )
    through = next((axis for axis in (2, 1, 0) if sizes[axis] == 1), 2)
    time = next((axis for axis in long if axis > 2), through)
    column, row = (axis for axis in range(3) if axis != through)
    if affine is None:
        return Layout(shape, time, row, column, note=NO_ORIENTATION)
    directions, doubt = _directions(affine, (column, row))
    if doubt:
        return Layout(shape, time, row, column, note=doubt)
    (world_column, _), (world_row, _) = directions
    if world_column > world_row:
        column, row, directions = row, column, directions[::-1]
    flipped = tuple(
        axis for axis, (_, sign) in zip((column, row), directions, strict=True) if sign > 0
    )
    return Layout(
        shape, time, row, column, flipped, True, _turn_note(shape, row, column, directions)
    )


def _directions(affine: np.ndarray, axes: tuple[int, int]) -> tuple[list[tuple[int, int]], str]:
    """(body axis, sign) of each axis of the picture, or a note on why there are none."""
    from nibabel.orientations import io_orientation

    steps = np.asarray(affine, float)[:3, list(axes)]
    plane = np.zeros((4, 3))
    plane[:3, :2] = steps / np.maximum(np.linalg.norm(steps, axis=0), np.finfo(float).tiny)
    plane[3, 2] = 1
    found = io_orientation(plane) if np.isfinite(plane).all() else np.full((2, 2), np.nan)
    if not np.isfinite(found).all():
        return [], f"has an affine without directions; its axes are taken as those of {RELEASE}"
    directions = [(int(world), int(sign)) for world, sign in found]
    aligned = min(abs(plane[world, n]) for n, (world, _) in enumerate(directions))
    if aligned < LEAST_ALIGNED:
        angle = math.degrees(math.acos(aligned))
        return [], (
            f"lies {angle:.0f} degrees off the body's axes; its axes are taken as those of "
            f"{RELEASE}"
        )
    return directions, ""


def _turn_note(
    shape: Sequence[int], row: int, column: int, directions: Sequence[tuple[int, int]]
) -> str:
    letters = [("LR", "PA", "IS")[world][sign > 0] for world, sign in directions]
    if row > column and letters == ["L", "P"]:
        return ""
    stored = letters if row > column else letters[::-1]
    return (
        f"is stored with the axes {', '.join(stored)} (by its affine), and is turned to L, P"
        if {world for world, _ in directions} == {0, 1}
        else f"is stored with the axes {', '.join(stored)} (by its affine), no transverse plane; "
        "columns are taken to run to L or P, rows to I"
    )
