"""Left ventricular diameters, fractional shortening and heart rate from an M-mode mask.

Recommendations: Lang et al., JASE 28, 2015, section 1.1 (internal dimensions by M-mode).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.signal import find_peaks, savgol_filter

from heartseg.metrics import Spacing

MOUSE_RATES = (200.0, 900.0)
"""Slowest and fastest plausible heart rate of a mouse, anaesthetised or awake, in beats per
minute."""
SMOOTHING = 0.25
"""Length of the smoothing window as a part of the shortest plausible beat."""
PROMINENCE = 0.3
"""A beat's extremum stands out by at least this part of the trace's range."""


@dataclass(frozen=True)
class Measurements:
    """Clinical values of one M-mode window; NaN where they cannot be told."""

    lvidd_mm: float
    """LV inner diameter at end-diastole."""
    lvids_mm: float
    """LV inner diameter at end-systole."""
    fs_percent: float
    """Fractional shortening."""
    hr_bpm: float
    """Heart rate in beats per minute."""


def diameter_trace(mask: np.ndarray, mm_per_row: float) -> np.ndarray:
    """LV diameter of every column in mm, float (W,); NaN where a column has no LV.

    The mask (H, W) gets its holes filled; a column's longest run of LV pixels is its
    diameter, so a stray island does not count.
    """
    mask = ndimage.binary_fill_holes(mask)
    above = np.cumsum(mask, axis=0)
    before_run = np.maximum.accumulate(np.where(mask, 0, above), axis=0)
    longest = (above - before_run).max(axis=0)
    return np.where(longest > 0, longest * mm_per_row, np.nan)


def measure(
    mask: np.ndarray,
    spacing: Spacing,
    *,
    minimal_rate: float,
    maximal_rate: float,
) -> Measurements:
    """Diameters, fractional shortening and heart rate of one window's or strip's mask.

    LVIDd is the median of the end-diastolic maxima of the smoothed diameter trace, LVIDs that
    of the end-systolic minima, FS = (LVIDd - LVIDs) / LVIDd * 100. A window shorter than a
    beat may have no inner maximum (minimum): its largest (smallest) diameter stands in. The
    heart rate is 60 over the median interval between neighbouring maxima and between
    neighbouring minima; it is NaN where the window shows fewer than two beats, that is
    neither two maxima nor two minima. All is NaN where the mask has no LV.

    Args:
        mask: boolean (H, W); columns without LV are excluded, and no beat is counted across a
            longer gap of them.
        spacing: mm per row and s per column.
        minimal_rate: slowest plausible heart rate in beats per minute; in a longer interval a
            beat was overlooked.
        maximal_rate: fastest plausible one; it bounds the extrema's distance from below.
    """
    mm_per_row, s_per_column = spacing
    raw = diameter_trace(mask, mm_per_row)
    if np.isnan(raw).all():
        return Measurements(np.nan, np.nan, np.nan, np.nan)
    shortest_beat = 60.0 / maximal_rate / s_per_column  # columns
    pieces = [_smooth(piece, shortest_beat) for piece in _pieces(raw, SMOOTHING * shortest_beat)]
    whole = np.concatenate(pieces)
    # A step of one row is no beat: the mask resolves nothing finer.
    prominence = max(PROMINENCE * float(np.ptp(whole)), mm_per_row)

    largest, smallest, intervals = [], [], []
    for trace in pieces:
        maxima = _inner_peaks(trace, shortest_beat, prominence)
        minima = _inner_peaks(-trace, shortest_beat, prominence)
        largest += list(trace[maxima])
        smallest += list(trace[minima])
        intervals += [*np.diff(maxima), *np.diff(minima)]
    lvidd = float(np.median(largest) if largest else whole.max())
    lvids = float(np.median(smallest) if smallest else whole.min())
    beats = np.array(intervals) * s_per_column
    beats = beats[beats <= 60.0 / minimal_rate]
    rate = 60.0 / float(np.median(beats)) if len(beats) else np.nan
    return Measurements(lvidd, lvids, 100.0 * (lvidd - lvids) / lvidd, rate)


def _pieces(raw: np.ndarray, bridge: float) -> list[np.ndarray]:
    """The trace without its gaps: short ones are filled by straight lines, long ones part it."""
    seen = np.flatnonzero(np.isfinite(raw))
    runs = np.split(seen, np.flatnonzero(np.diff(seen) > bridge) + 1)
    return [np.interp(np.arange(run[0], run[-1] + 1), run, raw[run]) for run in runs]


def _smooth(trace: np.ndarray, shortest_beat: float) -> np.ndarray:
    """Savitzky-Golay: parabolas keep the height of an extremum, a moving mean would not."""
    window = min(int(SMOOTHING * shortest_beat), len(trace))
    window -= 1 - window % 2  # odd
    return savgol_filter(trace, window, polyorder=2) if window > 2 else trace


def _inner_peaks(trace: np.ndarray, distance: float, prominence: float) -> np.ndarray:
    """Columns of the maxima that stand out, apart from the trace's first and last column.

    With its ends pulled down, a beat that the window cuts keeps its full prominence.
    """
    padded = np.pad(trace, 1, constant_values=float(trace.min()))
    peaks, _ = find_peaks(padded, distance=max(distance, 1.0), prominence=prominence)
    peaks = peaks - 1
    return peaks[(peaks > 0) & (peaks < len(trace) - 1)]
