"""The upper and the lower wall of the left ventricle over time, from an M-mode mask."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from scipy import ndimage

AMBIGUOUS = 0.5
"""A column whose second run in the cavity's component, or whose filled holes, exceed this part of
its longest run does not tell where the walls are."""
NARROWEST, WIDEST = 0.1, 1.5
"""Plausible diameters as parts of the trace's 90th percentile, which lies near end-diastole: no
heart shortens by more than 90 %."""
STEP = 0.15
"""A wall moves continuously: between neighbouring columns by less than this part of that
percentile."""


class Column(IntEnum):
    """What a column of the strip is good for."""

    USED = 0
    MISSING = 1
    """No LV in the mask."""
    IMPLAUSIBLE = 2
    """The mask cannot be right there, so the column is not counted."""
    BAD_QUALITY = 3
    """Excluded by the caller."""


@dataclass(frozen=True)
class Walls:
    """Wall traces of a strip of W columns.

    Attributes:
        upper, lower: depth in mm of the LV's inner borders, float (W,); NaN where not USED.
        columns: `Column` of each, uint8 (W,).
        pieces: (first, last) column of the stretches within which the walls are continuous;
            gaps inside them are short enough to be bridged by straight lines.
    """

    upper: np.ndarray
    lower: np.ndarray
    columns: np.ndarray
    pieces: list[tuple[int, int]]

    @property
    def diameter(self) -> np.ndarray:
        """LV inner diameter in mm, float (W,); NaN where not USED."""
        return self.lower - self.upper

    def bridged(self, piece: tuple[int, int]) -> np.ndarray:
        """Diameter in mm of a piece's columns, its short gaps filled by straight lines."""
        first, last = piece
        diameter = self.diameter[first : last + 1]
        seen = np.flatnonzero(np.isfinite(diameter))
        return np.interp(np.arange(last - first + 1), seen, diameter[seen])

    def fraction(self, column: Column) -> float:
        """Part of the strip's columns that are of this kind, 0 to 1."""
        return float(np.mean(self.columns == column))


def trace_walls(
    mask: np.ndarray, mm_per_row: float, bridge: float, excluded: np.ndarray | None = None
) -> Walls:
    """Follow the walls through a mask that may have faults.

    Enclosed holes are filled. Where a column meets several components of the mask, the one of the
    largest area is the cavity: at end-systole a stray island may be thicker than the cavity. Its
    longest run gives the walls. A column is IMPLAUSIBLE where the run is ambiguous, is cut off by
    the image's upper or lower edge, is far too narrow or wide, or belongs to a stretch shorter
    than `bridge` that a jump of a wall severs from its neighbours.

    Args:
        mask: boolean (H, W).
        mm_per_row: depth of a pixel.
        bridge: longest gap, in columns, over which the walls are taken to go on.
        excluded: boolean (W,), columns of bad quality; never bridged.
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
    usable = seen & (np.maximum(second, holes) <= AMBIGUOUS * length) & ~cut
    usable &= (length >= NARROWEST * usual) & (length <= WIDEST * usual)

    bad = np.zeros_like(seen) if excluded is None else excluded
    usable &= ~bad
    walls = np.stack([top, top + length])
    for first, last, severed in _stretches(walls, usable, bad, bridge, STEP * usual):
        if severed and last - first + 1 < bridge:
            usable[first : last + 1] = False
    pieces = [(f, last) for f, last, _ in _stretches(walls, usable, bad, bridge, STEP * usual)]

    columns = np.full(len(seen), Column.IMPLAUSIBLE, np.uint8)
    columns[usable] = Column.USED
    columns[~seen] = Column.MISSING
    columns[bad] = Column.BAD_QUALITY
    upper, lower = np.where(usable, walls * mm_per_row, np.nan)
    return Walls(upper, lower, columns, pieces)


def longest_runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First row and length of every column's longest run, and the length of the next longest.

    Args:
        mask: boolean (H, W).

    Returns:
        Three integer arrays (W,); 0 where there is no such run. Of equal runs the upper counts.
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


def _stretches(
    walls: np.ndarray, usable: np.ndarray, bad: np.ndarray, bridge: float, step: float
) -> list[tuple[int, int, bool]]:
    """First and last column of each stretch, and whether a jump parts it from a neighbour."""
    seen = np.flatnonzero(usable)
    if not len(seen):
        return []
    apart = (np.diff(seen) - 1 > bridge) | (np.diff(np.cumsum(bad)[seen]) > 0)
    jumps = (np.abs(np.diff(walls[:, seen], axis=1)) > step).any(axis=0) & ~apart
    ends = np.flatnonzero(apart | jumps)
    severed = np.concatenate([[False], jumps[ends], [False]])
    return [
        (int(seen[first]), int(seen[last]), bool(severed[k] or severed[k + 1]))
        for k, (first, last) in enumerate(
            zip([0, *(ends + 1)], [*ends, len(seen) - 1], strict=True)
        )
    ]
