"""Traces of the LV's inner walls on an M-mode strip, and the mask between them.

A trace is a depth per column: a row in pixels, counted from the centre of the first row.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from heartseg.data.csv_table import read_numbers, read_table
from heartseg.errors import InputError

TRACES = ("upper", "lower")


def read_traces(path: Path, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Upper and lower trace of a strip of `rows` x `columns` pixels from a CSV file.

    The file holds either points of two polylines (trace, col, row with trace "upper" or "lower",
    in any order) or a line per column (col, upper_row, lower_row). Between given columns a trace
    runs straight. Where a cell is empty, and before the first and behind the last point, the
    strip is not annotated.

    Returns:
        Two float64 (columns,), in pixels; NaN in both where either is unknown.

    Raises:
        InputError: "path: reason. Remedy."
    """
    traces = [
        _interpolate(path, name, *points, rows, columns)
        for name, points in zip(TRACES, _read_points(path), strict=True)
    ]
    unknown = np.isnan(traces[0]) | np.isnan(traces[1])
    upper, lower = (np.where(unknown, np.nan, trace) for trace in traces)
    if unknown.all():
        raise InputError(f"{path}: no column has both traces. Draw both over the same columns.")
    if (upper >= lower).any():
        column = int(np.flatnonzero(upper >= lower)[0])
        raise InputError(
            f"{path}: the lower trace is not below the upper one in column {column}. "
            "Correct the points there; rows count downwards."
        )
    return upper, lower


def fill_between(upper: np.ndarray, lower: np.ndarray, rows: int) -> np.ndarray:
    """Boolean mask (rows, W) of the LV between two traces (W,).

    A pixel belongs to it from the upper trace on and above the lower one, so a column's pixels
    number `lower - upper` to within one, without bias.
    """
    depth = np.arange(rows)[:, None]
    return (depth >= upper) & (depth < lower)


def traces_of(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The traces around a boolean mask (H, W): `fill_between` gives the mask again.

    From the first to the last row of each column; NaN where a column has none.
    """
    seen = mask.any(axis=0)
    upper = mask.argmax(axis=0)
    lower = len(mask) - mask[::-1].argmax(axis=0)
    return np.where(seen, upper, np.nan), np.where(seen, lower, np.nan)


def _read_points(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """(columns, rows) of the points of each trace; a row is NaN where its cell is empty."""
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
            f"{path}: has no point of the {name} trace. Give both: trace,col,row with trace "
            "upper or lower, or col,upper_row,lower_row."
        )
    for values, size, what in ((at, columns, "columns"), (depth, rows, "rows")):
        lowest, highest = values[given].min(), values[given].max()
        if lowest < -0.5 or highest > size - 0.5:
            raise InputError(
                f"{path}: the {name} trace reaches from {lowest:g} to {highest:g}, the picture "
                f"has {size} {what}. Give the traces of this picture, in its pixels."
            )
    places, same = np.unique(at[given], return_inverse=True)  # points of one column: their mean
    means = np.bincount(same, depth[given]) / np.bincount(same)
    trace = np.interp(np.arange(columns), places, means, left=np.nan, right=np.nan)
    empty = at[np.isfinite(at) & ~np.isfinite(depth)].round().astype(int)
    trace[empty[(empty >= 0) & (empty < columns)]] = np.nan
    return trace
