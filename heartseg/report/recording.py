"""The figure of a measured M-mode recording."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from heartseg.metrics import Spacing
from heartseg.metrics.beats import Beat
from heartseg.metrics.walls import Column, Walls

UPPER, LOWER, DIASTOLE, SYSTOLE = "#E69F00", "#56B4E9", "#009E73", "#D55E00"
SHADES = {Column.MISSING: "#999999", Column.IMPLAUSIBLE: "#F0E442", Column.BAD_QUALITY: "#CC79A7"}
NAMES = {
    Column.MISSING: "no LV found",
    Column.IMPLAUSIBLE: "implausible, not used",
    Column.BAD_QUALITY: "bad quality, excluded",
}
COLUMNS_PER_ROW = 2200
MOST_ROWS = 40  # because matplotlib's limit is 2^16 pixels


def recording_figure(
    image: np.ndarray,
    spacing: Spacing,
    walls: Walls,
    pieces: Sequence[Sequence[Beat]],
    title: str,
) -> Figure:
    """Draw the strip with wall traces, end-diastoles and end-systoles, and LVID over time below.

    A long strip has several rows of panels.

    Args:
        image: uint8 (H, W).
        spacing: mm per row and s per column.
        walls: Walls of the strip.
        pieces: Beats of each piece of the strip.
        title: Title of the figure.
    """
    height, columns = image.shape
    mm_per_row, s_per_column = spacing
    rows = min(-(-columns // COLUMNS_PER_ROW), MOST_ROWS)
    shown = -(-columns // rows)
    strip_height = max(11.0 * height / max(shown, height), 1.6)
    figure = Figure(
        figsize=(12.0, rows * (strip_height + 1.8) + 0.8), dpi=100, layout="constrained"
    )
    grid = figure.subplots(2 * rows, 1, squeeze=False, height_ratios=[strip_height, 1.3] * rows)
    time = (np.arange(columns) + 0.5) * s_per_column
    white = max(float(np.percentile(image, 99.5)), 1.0)  # recordings are often dark
    top = 1.1 * np.nanmax(walls.diameter) if (walls.columns == Column.USED).any() else 1.0
    for row, (above, below) in enumerate(grid.reshape(rows, 2)):
        cut = slice(row * shown, min((row + 1) * shown, columns))
        start, end = cut.start * s_per_column, cut.stop * s_per_column
        extent = (start, end, height * mm_per_row, 0)
        above.imshow(image[:, cut], cmap="gray", vmin=0, vmax=white, extent=extent, aspect="auto")
        above.plot(time[cut], walls.upper[cut], color=UPPER, linewidth=1)
        above.plot(time[cut], walls.lower[cut], color=LOWER, linewidth=1)
        below.plot(time[cut], walls.diameter[cut], color="black", linewidth=0.8)
        _shade(below, walls.columns[cut], start, s_per_column)
        bad = np.where(walls.columns[cut] == Column.BAD_QUALITY, Column.BAD_QUALITY, Column.USED)
        _shade(above, bad, start, s_per_column, alpha=0.25)
        for piece in pieces:
            for beat in piece:
                for at, diameter, colour in (
                    (beat.diastole_s, beat.lvidd_mm, DIASTOLE),
                    (beat.systole_s, beat.lvids_mm, SYSTOLE),
                ):
                    if start <= at < end:
                        column = int(at / s_per_column)
                        ends = walls.upper[column], walls.lower[column]
                        above.vlines(at, *ends, color=colour, linewidth=1.2)
                        below.plot(at, diameter, ".", color=colour, markersize=6)
        above.set_ylabel("depth (mm)", fontsize=8)
        below.set_ylabel("LVID (mm)", fontsize=8)
        below.set_xlabel("time (s)", fontsize=8)
        below.set_ylim(0, top)
        for axes in (above, below):
            axes.set_xlim(start, row * shown * s_per_column + shown * s_per_column)
            axes.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=10)
    figure.legend(handles=_legend(walls), loc="outside lower center", ncols=7, fontsize=8)
    return figure


def _shade(
    axes: Axes, columns: np.ndarray, start: float, s_per_column: float, alpha: float = 0.5
) -> None:
    """Colour the columns that are not used."""
    for kind, colour in SHADES.items():
        edges = np.flatnonzero(np.diff(np.pad(columns == kind, 1).astype(np.int8)))
        for first, end in zip(edges[::2], edges[1::2], strict=True):
            span = start + first * s_per_column, start + end * s_per_column
            axes.axvspan(*span, color=colour, alpha=alpha, lw=0)


def _legend(walls: Walls) -> list[Any]:
    lines = {"upper wall": UPPER, "lower wall": LOWER}
    handles: list[Any] = [Line2D([], [], color=c, label=name) for name, c in lines.items()]
    for name, colour in (("end-diastole", DIASTOLE), ("end-systole", SYSTOLE)):
        handles.append(Line2D([], [], color=colour, marker=".", label=name))
    for kind, colour in SHADES.items():
        if (walls.columns == kind).any():
            handles.append(Patch(color=colour, alpha=0.5, label=NAMES[kind]))
    return handles
