"""Traces of the upper and the lower wall of the left ventricle in an M-mode mask."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from scipy import ndimage

MAX_AMBIGUITY = 0.5
"""Maximum length of a column's second longest run in the cavity, and of its filled holes, as a
fraction of the longest run. Beyond it, the position of the walls is ambiguous."""
NARROWEST, WIDEST = 0.1, 1.5
"""Plausible diameters as fractions of the trace's 90th percentile, which is close to end-diastole.
No heart shortens by more than 90 %."""
MAX_STEP = 0.15
"""Maximum movement of a wall between adjacent columns, as a fraction of the same percentile."""


class Column(IntEnum):
    """State of a column of the strip."""

    USED = 0
    MISSING = 1
    """No LV in the mask."""
    IMPLAUSIBLE = 2
    """The mask is implausible, so the column is not used."""
    BAD_QUALITY = 3
    """The caller has excluded the column."""


@dataclass(frozen=True)
class Walls:
    """Wall traces of a strip with W columns.

    Attributes:
        upper, lower: Depth in mm of the inner borders of the LV, float (W,); NaN unless USED.
        columns: `Column` of each column, uint8 (W,).
        pieces: (first, last) column of each piece with continuous walls. A piece may contain gaps
            that are short enough to be interpolated.
    """

    upper: np.ndarray
    lower: np.ndarray
    columns: np.ndarray
    pieces: list[tuple[int, int]]

    @property
    def diameter(self) -> np.ndarray:
        """LV inner diameter in mm, float (W,); NaN unless USED."""
        return self.lower - self.upper

    def interpolated(self, piece: tuple[int, int]) -> np.ndarray:
        """Return the diameter in mm of the columns of a piece, with linearly interpolated gaps."""
        first, last = piece
        diameter = self.diameter[first : last + 1]
        known = np.flatnonzero(np.isfinite(diameter))
        return np.interp(np.arange(last - first + 1), known, diameter[known])

    def fraction(self, column: Column) -> float:
        """Return the fraction of columns with this state, 0 to 1."""
        return float(np.mean(self.columns == column))


def trace_walls(
    mask: np.ndarray, mm_per_row: float, bridge: float, excluded: np.ndarray | None = None
) -> Walls:
    """Trace the walls in a mask that may have errors.

    Holes are filled. In a column with several components of the mask, the one with the largest area
    is the cavity, because at end-systole a stray island may be thicker. Its longest run gives the
    walls. A column is IMPLAUSIBLE if the run is ambiguous, touches the upper or lower edge of the
    image, or is far too narrow or wide, or if the column belongs to a piece that is shorter than
    `bridge` and separated from its neighbours by a jump of a wall.

    Args:
        mask: Mask of the LV, bool (H, W).
        mm_per_row: Depth of a pixel in mm.
        bridge: Longest gap in columns that is interpolated.
        excluded: Columns of bad quality, bool (W,), which are never bridged.
    """
    filled = ndimage.binary_fill_holes(mask)
    labels, _ = ndimage.label(filled)
    area = np.bincount(labels.ravel(), minlength=1)
    area[0] = 0
    size = area[labels]
    top, length, second = longest_runs(filled & (size == size.max(axis=0, initial=0)))
    holes = filled.sum(axis=0) - mask.sum(axis=0)
    cut = (top == 0) | (top + length == len(mask))
    seen = length > 0
    usual = np.percentile(length[seen], 90) if seen.any() else 0.0
    usable = seen & (np.maximum(second, holes) <= MAX_AMBIGUITY * length) & ~cut
    usable &= (length >= NARROWEST * usual) & (length <= WIDEST * usual)

    bad = np.zeros_like(seen) if excluded is None else excluded
    usable &= ~bad
    walls = np.stack([top, top + length])
    for first, last, is_severed in _pieces(walls, usable, bad, bridge, MAX_STEP * usual):
        if is_severed and last - first + 1 < bridge:
            usable[first : last + 1] = False
    pieces = [(f, last) for f, last, _ in _pieces(walls, usable, bad, bridge, MAX_STEP * usual)]

    columns = np.full(len(seen), Column.IMPLAUSIBLE, np.uint8)
    columns[usable] = Column.USED
    columns[~seen] = Column.MISSING
    columns[bad] = Column.BAD_QUALITY
    upper, lower = np.where(usable, walls * mm_per_row, np.nan)
    return Walls(upper, lower, columns, pieces)


def longest_runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the longest run of each column.

    Args:
        mask: bool (H, W).

    Returns:
        First row and length of the longest run, and length of the second longest run, each int
        (W,); 0 if there is no such run. Of two equally long runs, the upper one comes first.
    """
    edges = np.diff(np.pad(mask, ((1, 1), (0, 0))).astype(np.int8), axis=0).T  # (W, H + 1)
    column, start = np.nonzero(edges == 1)
    length = np.nonzero(edges == -1)[1] - start
    order = np.lexsort((-length, column))
    column, start, length = column[order], start[order], length[order]
    rank = np.arange(len(column)) - np.searchsorted(column, column)  # within the column
    top, longest, second = np.zeros((3, mask.shape[1]), int)
    top[column[rank == 0]] = start[rank == 0]
    longest[column[rank == 0]] = length[rank == 0]
    second[column[rank == 1]] = length[rank == 1]
    return top, longest, second


def _pieces(
    walls: np.ndarray, usable: np.ndarray, bad: np.ndarray, bridge: float, step: float
) -> list[tuple[int, int, bool]]:
    """Divide the usable columns into continuous pieces.

    Args:
        walls: First row of the cavity and first row below it, (2, W).
        usable: Columns with plausible walls, bool (W,).
        bad: Columns of bad quality, bool (W,).
        bridge: Longest gap in columns within a piece.
        step: Largest movement of a wall in rows within a piece.

    Returns:
        First and last column of each piece, and whether a jump separates it from a neighbour.
    """
    used = np.flatnonzero(usable)
    if not len(used):
        return []
    gaps = (np.diff(used) - 1 > bridge) | (np.diff(np.cumsum(bad)[used]) > 0)
    jumps = (np.abs(np.diff(walls[:, used], axis=1)) > step).any(axis=0) & ~gaps
    ends = np.flatnonzero(gaps | jumps)
    is_jump = np.concatenate([[False], jumps[ends], [False]])
    return [
        (int(used[first]), int(used[last]), bool(is_jump[k] or is_jump[k + 1]))
        for k, (first, last) in enumerate(
            zip([0, *(ends + 1)], [*ends, len(used) - 1], strict=True)
        )
    ]
