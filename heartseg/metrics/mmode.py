"""Left ventricular diameters, volumes, function and heart rate from an M-mode mask.

Windows and whole recordings are measured by the same code: walls (`metrics.walls`), beats
(`metrics.beats`) and the clinical values in this module. Recommendations: Lang et al., JASE 28,
2015, section 1.1 (internal dimensions by M-mode).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
from scipy import ndimage

from heartseg.data.species import MOUSE, Species
from heartseg.datasets import structure_mask
from heartseg.metrics import Spacing
from heartseg.metrics.beats import SMOOTHING, Beat, find_beats, rmssd_ms, sdnn_ms, smooth_pieces
from heartseg.metrics.walls import Walls, longest_runs, trace_walls

Value = TypeVar("Value", float, pd.Series)


@dataclass(frozen=True)
class Measurements:
    """Clinical values of an M-mode window or recording; NaN if they cannot be measured."""

    lvidd_mm: float
    """LV inner diameter at end-diastole, median over the beats."""
    lvids_mm: float
    """LV inner diameter at end-systole, median over the beats."""
    fs_percent: float
    """Fractional shortening, median over the beats."""
    hr_bpm: float
    """Heart rate in beats per minute: 60 divided by the median interval in s."""
    edv: float
    """LV end-diastolic volume by Teichholz in the unit of the species, median over the beats."""
    esv: float
    """LV end-systolic volume by Teichholz in the unit of the species, median over the beats."""
    ef_percent: float
    """Ejection fraction by Teichholz, median over the beats."""
    sdnn_ms: float
    """Standard deviation of the intervals between beats in ms."""
    rmssd_ms: float
    """Root mean square of the differences of successive intervals in ms."""


def teichholz_volume(diameter_mm: Value, species: Species) -> Value:
    """Compute the LV volume 7 / (2.4 + D) * D^3 (Teichholz et al., Am J Cardiol 37:7-11, 1976).

    For humans, D in cm gives mL, as published. For mice, D in mm gives uL, as in VisualSonics' Vevo
    software and in Echo2Pheno. The two differ by more than a conversion of units, because the 2.4
    of the formula has a unit: 4 mm are 70 uL in a mouse and 160 uL in a human.

    Args:
        diameter_mm: LV inner diameter in mm.
        species: Species, which determines the unit.
    """
    diameter = diameter_mm / species.teichholz_mm
    return 7.0 / (2.4 + diameter) * diameter**3


def fractional_shortening(lvidd_mm: Value, lvids_mm: Value) -> Value:
    """Compute (LVIDd - LVIDs) / LVIDd in percent."""
    return 100.0 * (lvidd_mm - lvids_mm) / lvidd_mm


def teichholz_ef(lvidd_mm: Value, lvids_mm: Value, species: Species) -> Value:
    """Compute (EDV - ESV) / EDV in percent, both volumes by Teichholz."""
    edv = teichholz_volume(lvidd_mm, species)
    return 100.0 * (edv - teichholz_volume(lvids_mm, species)) / edv


def diameter_trace(mask: np.ndarray, mm_per_row: float) -> np.ndarray:
    """Measure the LV diameter of every column.

    The diameter is the longest run of LV pixels after filling holes, so that stray islands do not
    count. Unlike `trace_walls`, this function does not reject implausible columns.

    Args:
        mask: Mask of the LV, bool (H, W).
        mm_per_row: Depth of a pixel in mm.

    Returns:
        Diameter in mm, float (W,); NaN if a column has no LV.
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
    """Measure diameters, volumes, function and heart rate in the mask of a window or strip.

    All values are NaN if the mask has no LV or less of it than half a beat. The heart rate is NaN
    without two successive beats.

    Args:
        mask: Mask of the LV, bool (H, W).
        spacing: (mm per row, s per column).
        minimal_rate: Slowest plausible heart rate in beats per minute.
        maximal_rate: Fastest plausible heart rate in beats per minute.
        species: Species, which determines the unit of volumes. The range of rates may be narrower
            than the one of the species.
    """
    walls, beats = trace_beats(mask, spacing, minimal_rate, maximal_rate)
    return summarise_beats(walls, beats, 60.0 / maximal_rate / spacing[1], species)


def trace_beats(
    mask: np.ndarray,
    spacing: Spacing,
    minimal_rate: float,
    maximal_rate: float,
    excluded: np.ndarray | None = None,
) -> tuple[Walls, list[list[Beat]]]:
    """Find the walls of the LV in a mask, and the beats in every piece of them.

    Gaps of up to a quarter of the shortest plausible beat are bridged.

    Args:
        mask: Mask of the LV, bool (H, W).
        spacing: (mm per row, s per column).
        minimal_rate: Slowest plausible heart rate in beats per minute.
        maximal_rate: Fastest plausible heart rate in beats per minute.
        excluded: Columns of bad quality, bool (W,). No beat extends across them.
    """
    mm_per_row, s_per_column = spacing
    bridge = SMOOTHING * 60.0 / maximal_rate / s_per_column
    walls = trace_walls(mask, mm_per_row, bridge, excluded)
    return walls, find_beats(walls, mm_per_row, s_per_column, minimal_rate, maximal_rate)


def summarise_beats(
    walls: Walls, pieces: Sequence[Sequence[Beat]], shortest_beat: float, species: Species
) -> Measurements:
    """Compute the medians over all beats.

    A trace that is shorter than a beat may not contain an end-diastole or end-systole. The largest
    or smallest diameter replaces it if a piece has at least half of `shortest_beat`.

    Args:
        walls: Walls of the strip.
        pieces: Beats of each piece.
        shortest_beat: Shortest plausible beat in columns.
        species: Species, which determines the unit of volumes.
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
    """Compute the median of the finite values; NaN if there are none."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.median(known)) if known else np.nan


def window_row(
    prediction: np.ndarray, reference: np.ndarray, spacing: Spacing, species: Species
) -> dict[str, float]:
    """Measure an M-mode window in the predicted and the reference label map.

    Args:
        prediction: Predicted label map (H, W).
        reference: Reference label map (H, W).
        spacing: (mm per row, s per column).
        species: Species of the subject.

    Returns:
        lvidd_mm, lvids_mm, fs_percent, ef_percent (Teichholz) and hr_bpm, each with the suffixes
        _reference and _predicted; NaN if a value cannot be measured.
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
