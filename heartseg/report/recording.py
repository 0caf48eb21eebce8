"""The figure of a measured M-mode recording, and its tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from heartseg.metrics import Spacing
from heartseg.metrics.beats import Beat
from heartseg.metrics.mmode import (
    Measurements,
    Species,
    fractional_shortening,
    teichholz_ef,
    teichholz_volume,
)
from heartseg.metrics.walls import Column, Walls

UPPER, LOWER, DIASTOLE, SYSTOLE = "#E69F00", "#56B4E9", "#009E73", "#D55E00"
SHADES = {Column.MISSING: "#999999", Column.IMPLAUSIBLE: "#F0E442", Column.BAD_QUALITY: "#CC79A7"}
NAMES = {
    Column.MISSING: "no LV found",
    Column.IMPLAUSIBLE: "implausible, not counted",
    Column.BAD_QUALITY: "bad quality, excluded",
}
COLUMNS_PER_ROW = 2200


def beat_table(pieces: Sequence[Sequence[Beat]], species: Species) -> pd.DataFrame:
    """A row per beat; units are in the column names."""
    unit = species.volume_unit
    rows = []
    for number, piece in enumerate(pieces, start=1):
        for beat in piece:
            edv = teichholz_volume(beat.lvidd_mm, species)
            esv = teichholz_volume(beat.lvids_mm, species)
            rows.append(
                {
                    "piece": number,
                    "diastole_s": beat.diastole_s,
                    "systole_s": beat.systole_s,
                    "contraction_onset_s": beat.onset_s,
                    "lvidd_mm": beat.lvidd_mm,
                    "lvids_mm": beat.lvids_mm,
                    "fs_percent": fractional_shortening(beat.lvidd_mm, beat.lvids_mm),
                    f"edv_teichholz_{unit}": edv,
                    f"esv_teichholz_{unit}": esv,
                    f"stroke_volume_teichholz_{unit}": edv - esv,
                    "ef_teichholz_percent": teichholz_ef(beat.lvidd_mm, beat.lvids_mm, species),
                    "interval_to_next_beat_ms": 1000 * beat.interval_s,
                    "heart_rate_bpm": 60 / beat.interval_s,
                }
            )
    columns = list(rows[0]) if rows else ["piece", "diastole_s", "systole_s"]
    return pd.DataFrame(rows, columns=columns)


def summary_row(
    values: Measurements, walls: Walls, pieces: Sequence[Sequence[Beat]], species: Species
) -> dict[str, Any]:
    """Medians over the beats, and what was counted; units are in the keys."""
    named = asdict(values)
    unit = species.volume_unit
    edv, esv, ef = named.pop("edv"), named.pop("esv"), named.pop("ef_percent")
    rate = named.pop("hr_bpm")
    beats = [beat for piece in pieces for beat in piece]
    return {
        "lvidd_mm": named.pop("lvidd_mm"),
        "lvids_mm": named.pop("lvids_mm"),
        "fs_percent": named.pop("fs_percent"),
        f"edv_teichholz_{unit}": edv,
        f"esv_teichholz_{unit}": esv,
        "ef_teichholz_percent": ef,
        "heart_rate_bpm": rate,
        **named,
        "complete_beats": sum(np.isfinite(b.lvidd_mm) and np.isfinite(b.lvids_mm) for b in beats),
        "intervals": sum(np.isfinite(b.interval_s) for b in beats),
        "used_fraction": walls.fraction(Column.USED),
        "missing_fraction": walls.fraction(Column.MISSING),
        "implausible_fraction": walls.fraction(Column.IMPLAUSIBLE),
        "bad_quality_fraction": walls.fraction(Column.BAD_QUALITY),
    }


def recording_figure(
    image: np.ndarray,
    spacing: Spacing,
    walls: Walls,
    pieces: Sequence[Sequence[Beat]],
    title: str,
) -> Figure:
    """The strip with wall traces, end-diastoles and end-systoles; below it LVID over time.

    A long strip takes several rows of panels.

    Args:
        image: uint8 (H, W).
        spacing: mm per row and s per column.
        walls: of the strip.
        pieces: beats by piece.
        title: above all.
    """
    height, columns = image.shape
    mm_per_row, s_per_column = spacing
    rows = max(-(-columns // COLUMNS_PER_ROW), 1)
    shown = -(-columns // rows)
    strip_height = max(11.0 * height / max(shown, height), 1.6)
    figure = Figure(
        figsize=(12.0, rows * (strip_height + 1.8) + 0.8), dpi=100, layout="constrained"
    )
    grid = figure.subplots(2 * rows, 1, squeeze=False, height_ratios=[strip_height, 1.3] * rows)
    time = (np.arange(columns) + 0.5) * s_per_column
    top = 1.1 * np.nanmax(walls.diameter) if (walls.columns == Column.USED).any() else 1.0
    for row in range(rows):
        above, below = grid[2 * row : 2 * row + 2, 0]
        start, end = row * shown * s_per_column, (row + 1) * shown * s_per_column
        extent = (0, columns * s_per_column, height * mm_per_row, 0)
        above.imshow(image, cmap="gray", vmin=0, vmax=_white(image), extent=extent, aspect="auto")
        above.plot(time, walls.upper, color=UPPER, linewidth=1)
        above.plot(time, walls.lower, color=LOWER, linewidth=1)
        below.plot(time, walls.diameter, color="black", linewidth=0.8)
        _mark_beats(above, below, walls, pieces, s_per_column)
        _shade(below, walls, s_per_column)
        above.set_ylabel("depth (mm)", fontsize=8)
        below.set_ylabel("LVID (mm)", fontsize=8)
        below.set_xlabel("time (s)", fontsize=8)
        below.set_ylim(0, top)
        for axes in (above, below):
            axes.set_xlim(start, end)
            axes.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=10)
    figure.legend(handles=_legend(walls), loc="outside lower center", ncols=7, fontsize=8)
    return figure


def _white(image: np.ndarray) -> float:
    """The grey value drawn white: recordings are often dark."""
    return max(float(np.percentile(image, 99.5)), 1.0)


def _mark_beats(
    above: Axes, below: Axes, walls: Walls, pieces: Sequence[Sequence[Beat]], s_per_column: float
) -> None:
    beats = [beat for piece in pieces for beat in piece]
    for colour, events in (
        (DIASTOLE, [(b.diastole_s, b.lvidd_mm) for b in beats if np.isfinite(b.diastole_s)]),
        (SYSTOLE, [(b.systole_s, b.lvids_mm) for b in beats if np.isfinite(b.systole_s)]),
    ):
        for at, diameter in events:
            below.plot(at, diameter, ".", color=colour, markersize=6)
            column = int(at / s_per_column)
            above.vlines(at, walls.upper[column], walls.lower[column], color=colour, linewidth=1.2)


def _shade(axes: Axes, walls: Walls, s_per_column: float) -> None:
    """Colour the stretches that are not counted."""
    for kind, colour in SHADES.items():
        edges = np.flatnonzero(np.diff(np.pad(walls.columns == kind, 1).astype(np.int8)))
        for first, end in zip(edges[::2], edges[1::2], strict=True):
            axes.axvspan(first * s_per_column, end * s_per_column, color=colour, alpha=0.5, lw=0)


def _legend(walls: Walls) -> list[Any]:
    lines = {"upper wall": UPPER, "lower wall": LOWER}
    handles: list[Any] = [Line2D([], [], color=c, label=name) for name, c in lines.items()]
    for name, colour in (("end-diastole", DIASTOLE), ("end-systole", SYSTOLE)):
        handles.append(Line2D([], [], color=colour, marker=".", label=name))
    for kind, colour in SHADES.items():
        if (walls.columns == kind).any():
            handles.append(Patch(color=colour, alpha=0.5, label=NAMES[kind]))
    return handles
