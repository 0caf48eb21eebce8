"""Left ventricular diameters, volumes, function and heart rate from an M-mode mask.

One window and a whole recording are measured by the same code: walls (`metrics.walls`), beats
(`metrics.beats`), and what they amount to (here). Recommendations: Lang et al., JASE 28, 2015,
section 1.1 (internal dimensions by M-mode).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
from scipy import ndimage

from heartseg.data.species import HUMAN as HUMAN  # with what is measured here
from heartseg.data.species import MOUSE, Species
from heartseg.data.species import SPECIES as SPECIES
from heartseg.datasets import structure_mask
from heartseg.metrics import Spacing
from heartseg.metrics.beats import SMOOTHING, Beat, find_beats, rmssd_ms, sdnn_ms, smooth_pieces
from heartseg.metrics.walls import Walls, longest_runs, trace_walls

Value = TypeVar("Value", float, pd.Series)


@dataclass(frozen=True)
class Measurements:
    """Clinical values of one M-mode window or recording; NaN where they cannot be told."""

    lvidd_mm: float
    """LV inner diameter at end-diastole, median over the beats."""
    lvids_mm: float
    """LV inner diameter at end-systole, median over the beats."""
    fs_percent: float
    """Fractional shortening, median over the beats."""
    hr_bpm: float
    """Heart rate in beats per minute, 60 over the median interval in s."""
    edv: float
    """LV end-diastolic volume by Teichholz in the species' unit, median over the beats."""
    esv: float
    """LV end-systolic volume likewise."""
    ef_percent: float
    """Ejection fraction by Teichholz, median over the beats."""
    sdnn_ms: float
    """Standard deviation of the intervals between beats."""
    rmssd_ms: float
    """Root mean square of the differences of successive intervals."""


def teichholz_volume(diameter_mm: Value, species: Species) -> Value:
    """LV volume 7 / (2.4 + D) * D^3 (Teichholz et al., Am J Cardiol 37:7-11, 1976).

    Human: D in cm gives mL, as published. Mouse: the same numbers with D in mm give uL, as
    VisualSonics' Vevo software and Echo2Pheno have it. The formula's 2.4 has a unit, so this is
    a convention of its own and no conversion: 4 mm are 70 uL as a mouse, 160 uL as a human.
    """
    diameter = diameter_mm / species.teichholz_mm
    return 7.0 / (2.4 + diameter) * diameter**3


def fractional_shortening(lvidd_mm: Value, lvids_mm: Value) -> Value:
    """(LVIDd - LVIDs) / LVIDd in percent."""
    return 100.0 * (lvidd_mm - lvids_mm) / lvidd_mm


def teichholz_ef(lvidd_mm: Value, lvids_mm: Value, species: Species) -> Value:
    """(EDV - ESV) / EDV in percent, both volumes by Teichholz."""
    edv = teichholz_volume(lvidd_mm, species)
    return 100.0 * (edv - teichholz_volume(lvids_mm, species)) / edv


def diameter_trace(mask: np.ndarray, mm_per_row: float) -> np.ndarray:
    """LV diameter of every column in mm, float (W,); NaN where a column has no LV.

    The mask (H, W) gets its holes filled; a column's longest run of LV pixels is its
    diameter, so a stray island does not count. `trace_walls` also judges the columns.
    """
    _, longest, _ = longest_runs(ndimage.binary_fill_holes(mask))
    return np.where(longest > 0, longest * mm_per_row, np.nan)


def measure(
    mask: np.ndarray,
    spacing: Spacing,
    *,
    minimal_rate: float,
    maximal_rate: float,
    species: Species = MOUSE,
) -> Measurements:
    """Diameters, volumes, function and heart rate of one window's or strip's mask.

    All is NaN where the mask has no LV, or no more of it than a part of a beat in which nothing
    can be told. The heart rate is NaN where no two neighbouring beats are seen.

    Args:
        mask: boolean (H, W).
        spacing: mm per row and s per column.
        minimal_rate: slowest plausible heart rate in beats per minute.
        maximal_rate: fastest plausible one.
        species: whose volumes; the rates may be narrower than the species' own.
    """
    walls, beats = follow(mask, spacing, minimal_rate, maximal_rate)
    return summarise_beats(walls, beats, 60.0 / maximal_rate / spacing[1], species)


def follow(
    mask: np.ndarray,
    spacing: Spacing,
    minimal_rate: float,
    maximal_rate: float,
    excluded: np.ndarray | None = None,
) -> tuple[Walls, list[list[Beat]]]:
    """Walls of a mask, and the beats of every piece of them.

    Gaps of up to a quarter of the shortest plausible beat are bridged.

    Args:
        mask, spacing, minimal_rate, maximal_rate: as of `measure`.
        excluded: boolean (W,), columns of bad quality; no beat is counted across them.
    """
    mm_per_row, s_per_column = spacing
    bridge = SMOOTHING * 60.0 / maximal_rate / s_per_column
    walls = trace_walls(mask, mm_per_row, bridge, excluded)
    return walls, find_beats(walls, mm_per_row, s_per_column, minimal_rate, maximal_rate)


def summarise_beats(
    walls: Walls, pieces: Sequence[Sequence[Beat]], shortest_beat: float, species: Species
) -> Measurements:
    """Medians over the beats.

    A trace shorter than a beat may show no end-diastole (end-systole): its largest (smallest)
    diameter stands in where a piece of it lasts for half of `shortest_beat` (columns) at least.
    """
    traces = [t for t in smooth_pieces(walls, shortest_beat) if len(t) >= shortest_beat / 2]
    beats = [beat for piece in pieces for beat in piece]
    lvidd = _median([beat.lvidd_mm for beat in beats])
    lvids = _median([beat.lvids_mm for beat in beats])
    if traces:
        whole = np.concatenate(traces)
        lvidd = float(whole.max()) if np.isnan(lvidd) else lvidd
        lvids = float(whole.min()) if np.isnan(lvids) else lvids
    pairs = [(beat.lvidd_mm, beat.lvids_mm) for beat in beats]

    def over_beats(value: Callable[[float, float], float]) -> float:
        median = _median([value(*pair) for pair in pairs])
        return value(lvidd, lvids) if np.isnan(median) else median

    interval = _median([beat.interval_s for beat in beats])
    return Measurements(
        lvidd_mm=lvidd,
        lvids_mm=lvids,
        fs_percent=over_beats(fractional_shortening),
        hr_bpm=60.0 / interval,
        edv=over_beats(lambda lvidd, _: teichholz_volume(lvidd, species)),
        esv=over_beats(lambda _, lvids: teichholz_volume(lvids, species)),
        ef_percent=over_beats(lambda d, s: teichholz_ef(d, s, species)),
        sdnn_ms=sdnn_ms(pieces),
        rmssd_ms=rmssd_ms(pieces),
    )


def _median(values: Sequence[float]) -> float:
    """Median of the known values, NaN where there are none."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.median(known)) if known else np.nan


def window_row(
    prediction: np.ndarray, reference: np.ndarray, spacing: Spacing, species: Species
) -> dict[str, float]:
    """LVIDd, LVIDs (mm), FS, EF by Teichholz (percent) and HR (1/min) of one M-mode window.

    Each with the endings _reference and _predicted; NaN where it cannot be measured.
    """
    slowest, fastest = species.rates
    row = {}
    for labels, name in ((reference, "reference"), (prediction, "predicted")):
        mask = structure_mask(labels, "mmode", "LV")
        values = measure(mask, spacing, minimal_rate=slowest, maximal_rate=fastest, species=species)
        row[f"lvidd_mm_{name}"] = values.lvidd_mm
        row[f"lvids_mm_{name}"] = values.lvids_mm
        row[f"fs_percent_{name}"] = values.fs_percent
        row[f"ef_percent_{name}"] = values.ef_percent
        row[f"hr_bpm_{name}"] = values.hr_bpm
    return row
