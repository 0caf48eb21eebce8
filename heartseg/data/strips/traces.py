"""Traces of the inner walls of the LV on an M-mode strip, and the mask between them.

A trace is a depth per column, in rows from the centre of the first row.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from heartseg.data.csv_table import read_numbers, read_table
from heartseg.errors import InputError

TRACES = ("upper", "lower")


def read_traces(path: Path, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Read the upper and lower trace of a strip from a CSV file.

    The file contains either the points of two polylines in any order (columns trace, col and row,
    with trace "upper" or "lower"), or a line per column (col, upper_row, lower_row). A trace is
    linear between the given columns. The strip is not annotated where a cell is empty, nor before
    the first and after the last point.

    Args:
        path: Path of the CSV file.
        rows, columns: Size of the strip in pixels.

    Returns:
        Upper and lower trace, float64 (columns,), in rows. Both are NaN where either is unknown.

    Raises:
        InputError: The file is invalid. The message has the form "path: reason. Remedy."
    """
    traces = [
        _interpolate(path, name, *points, rows, columns)
        for name, points in zip(TRACES, _read_points(path), strict=True)
    ]
    unknown = np.isnan(traces[0]) | np.isnan(traces[1])
    upper, lower = (np.where(unknown, np.nan, trace) for trace in traces)
    if unknown.all():
        raise InputError(
            f"{path}: no column has both traces. Draw both traces over the same columns."
        )
    if (upper >= lower).any():
        column = int(np.flatnonzero(upper >= lower)[0])
        raise InputError(
            f"{path}: the lower trace is not below the upper one in column {column}. Correct these "
            "points. Rows are counted downwards."
        )
    return upper, lower


def fill_between(upper: np.ndarray, lower: np.ndarray, rows: int) -> np.ndarray:
    """Return the mask of the LV between two traces, bool (rows, W).

    A pixel is inside if upper <= row < lower, so the number of pixels of a column is an unbiased
    approximation of lower - upper.

    Args:
        upper, lower: Traces (W,) in rows, NaN where unknown.
        rows: Number of rows of the mask.
    """
    depth = np.arange(rows)[:, None]
    return (depth >= upper) & (depth < lower)


def mask_to_traces(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the traces around a mask, the inverse of `fill_between`.

    They run along the first and the last row of the mask in each column.

    Args:
        mask: Mask of the LV, bool (H, W).

    Returns:
        Upper and lower trace (W,), NaN in columns without mask.
    """
    found = mask.any(axis=0)
    upper = mask.argmax(axis=0)
    lower = len(mask) - mask[::-1].argmax(axis=0)
    return np.where(found, upper, np.nan), np.where(found, lower, np.nan)


def _read_points(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (columns, rows) of the points of each trace. Rows of empty cells are NaN."""
    rows = [f"{name}_row" for name in TRACES]
    numbers = ["col", "row", *rows]
    table = read_table(path, ["col"], ["trace", "row", *rows], numbers=numbers)
    at = read_numbers(table, "col", path)
    if not any(table["trace"]):
        return [(at, read_numbers(table, name, path)) for name in rows]
    of = table["trace"].str.lower()
    if strange := sorted(set(of) - set(TRACES)):
        raise InputError(f"{path}: trace is {strange[0]!r}. Write upper or lower.")
    depth = read_numbers(table, "row", path)
    return [(at[chosen], depth[chosen]) for chosen in (of == name for name in TRACES)]


def _interpolate(
    path: Path, name: str, at: np.ndarray, depth: np.ndarray, rows: int, columns: int
) -> np.ndarray:
    given = np.isfinite(at) & np.isfinite(depth)
    if not given.any():
        raise InputError(
            f"{path}: has no points of the {name} trace. Write both traces, with the columns "
            "trace,col,row (trace is upper or lower) or col,upper_row,lower_row."
        )
    for values, size, what in ((at, columns, "columns"), (depth, rows, "rows")):
        lowest, highest = values[given].min(), values[given].max()
        if lowest < -0.5 or highest > size - 0.5:
            raise InputError(
                f"{path}: the {name} trace extends from {lowest:g} to {highest:g}, but the image "
                f"has {size} {what}. Write the traces of this image, in its pixels."
            )
    places, indices = np.unique(at[given], return_inverse=True)
    means = np.bincount(indices, depth[given]) / np.bincount(indices)  # of the points of a column
    trace = np.interp(np.arange(columns), places, means, left=np.nan, right=np.nan)
    empty = at[np.isfinite(at) & ~np.isfinite(depth)].round().astype(int)
    trace[empty[(empty >= 0) & (empty < columns)]] = np.nan
    return trace
