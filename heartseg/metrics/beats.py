"""Heart beats in an M-mode trace: end-diastole, end-systole, intervals and their variability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from heartseg.metrics.walls import Walls

SMOOTHING = 0.25
"""Length of the smoothing window as a fraction of the shortest plausible beat."""
PROMINENCE = 0.3
"""Minimum prominence of a beat's extremum as a fraction of the trace's range."""
PREMATURE = 0.75
"""Minimum interval of a premature beat as a fraction of the shortest steady interval."""
CLEAN_NOISE = 0.016
"""Maximum noise of a clean trace: standard deviation of the difference between the trace and its
smoothed version, as a fraction of the trace's range. It is twice the noise of a mask with walls
that are exact to the pixel."""
MIN_AUTOCORRELATION = 0.4
"""Minimum autocorrelation of a noisy trace at a lag of one beat."""
INTERVAL_TOLERANCE = 0.06
"""Maximum relative difference between the beats' median interval and the period of the trace."""


@dataclass(frozen=True)
class Beat:
    """A beat, from an end-diastole to the next one. Values that the trace does not show are NaN.

    Attributes:
        diastole_s, systole_s: Times of the greatest and the smallest LV diameter, from the
            beginning of the strip.
        contraction_s: Time at which half of the contraction is complete. It is more precise than
            the times of the extrema.
        lvidd_mm, lvids_mm: LV inner diameter at end-diastole and at end-systole.
        interval_s: Time until the next beat; NaN if no beat follows, the rate is implausible, or
            the trace is too noisy to count beats.
    """

    diastole_s: float
    systole_s: float
    contraction_s: float
    lvidd_mm: float
    lvids_mm: float
    interval_s: float


def smooth_pieces(walls: Walls, shortest_beat: float) -> list[np.ndarray]:
    """Smooth the diameter of each piece by a Savitzky-Golay filter.

    Unlike a moving mean, its parabolas preserve the height of an extremum.

    Args:
        walls: Walls of the strip.
        shortest_beat: Shortest plausible beat in columns.

    Returns:
        Diameter in mm of the columns of each piece.
    """
    from scipy.signal import savgol_filter  # imported here because most commands do not need it

    smoothed = []
    for piece in walls.pieces:
        trace = walls.interpolated(piece)
        window = min(int(SMOOTHING * shortest_beat), len(trace))
        window -= 1 - window % 2  # odd
        smoothed.append(savgol_filter(trace, window, polyorder=2) if window > 2 else trace)
    return smoothed


def find_beats(
    walls: Walls,
    mm_per_row: float,
    s_per_column: float,
    minimal_rate: float,
    maximal_rate: float,
) -> list[list[Beat]]:
    """Find the beats in every piece of a trace.

    End-diastoles are prominent maxima of the smoothed diameter with at least the shortest plausible
    interval between them. End-systole is the minimum between two end-diastoles. A piece may begin
    or end within a beat, which is then incomplete. Intervals are measured between the times of half
    contraction; if a piece has fewer than two of these, between end-systoles or, failing that,
    end-diastoles, whose times are less precise.

    Noise causes additional extrema. The period of a noisy trace must therefore agree with the
    median interval between its beats; otherwise all intervals are NaN. Intervals of an irregular
    heart are accepted if the trace is clean.

    Args:
        walls: Walls of the strip.
        mm_per_row: Depth of a pixel in mm. A change of one row is not a beat.
        s_per_column: Time of a column in s.
        minimal_rate: Slowest plausible heart rate in beats per minute. In longer intervals, a beat
            was missed.
        maximal_rate: Fastest plausible steady heart rate in beats per minute.

    Returns:
        The beats of each piece, in order of time.
    """
    shortest = 60.0 / maximal_rate / s_per_column  # columns
    traces = smooth_pieces(walls, shortest)
    if not traces:
        return []
    low, high = np.percentile(np.concatenate(traces), (5, 95))
    prominence = max(PROMINENCE * float(high - low), mm_per_row)
    plausible = PREMATURE * 60.0 / maximal_rate, 60.0 / minimal_rate
    found = []
    all_intervals = []
    for (first, _), trace in zip(walls.pieces, traces, strict=True):
        landmarks = [
            _landmarks(trace, ed, es)
            for ed, es in _extrema(trace, PREMATURE * shortest, prominence)
        ]
        times = np.array([row[:3] for row in landmarks]).reshape(-1, 3)
        times = (times + first + 0.5) * s_per_column
        intervals = _intervals(times)
        intervals[(intervals < plausible[0]) | (intervals > plausible[1])] = np.nan
        found.append((times, landmarks))
        all_intervals.append(intervals)
    known = np.concatenate(all_intervals)
    known = known[np.isfinite(known)]
    noisy = _noise(walls, traces) > CLEAN_NOISE * float(high - low)
    if len(known) and noisy and not _is_periodic(walls.diameter, np.median(known) / s_per_column):
        all_intervals = [np.full_like(intervals, np.nan) for intervals in all_intervals]
    return [
        [
            Beat(ed_s, es_s, half_s, lvidd, lvids, interval)
            for (ed_s, es_s, half_s), (*_, lvidd, lvids), interval in zip(
                times.tolist(), landmarks, intervals.tolist(), strict=True
            )
        ]
        for (times, landmarks), intervals in zip(found, all_intervals, strict=True)
    ]


def sdnn_ms(pieces: Sequence[Sequence[Beat]]) -> float:
    """Compute the standard deviation (n - 1) of the intervals between beats in ms.

    Task Force of the ESC and NASPE, Circulation 93:1043-1065, 1996, which defines it for normal
    beats of an ECG; here it includes all mechanical beats. NaN with fewer than two intervals.
    """
    intervals = [b.interval_s for beats in pieces for b in beats if np.isfinite(b.interval_s)]
    return float(np.std(intervals, ddof=1)) * 1000 if len(intervals) > 1 else np.nan


def rmssd_ms(pieces: Sequence[Sequence[Beat]]) -> float:
    """Compute the root mean square of differences of successive intervals in ms (Task Force 1996).

    NaN if no two successive intervals are known.
    """
    differences = np.concatenate(
        [np.diff([b.interval_s for b in beats]) for beats in [*pieces, []]]
    )
    known = differences[np.isfinite(differences)]
    return float(np.sqrt(np.mean(known**2))) * 1000 if len(known) else np.nan


def _noise(walls: Walls, smoothed: Sequence[np.ndarray]) -> float:
    """Compute the standard deviation in mm of the difference between a trace and its smoothing."""
    raw = np.concatenate([walls.interpolated(piece) for piece in walls.pieces])
    return float(np.std(raw - np.concatenate(smoothed)))


def _is_periodic(diameter: np.ndarray, interval: float) -> bool:
    """Return whether the autocorrelation of a trace has a peak near an interval.

    Noise does not shift the peak, because it differs from beat to beat.

    Args:
        diameter: Trace (W,); unknown values are NaN and left out.
        interval: Expected period in columns.
    """
    from scipy.signal import correlate

    known = np.isfinite(diameter).astype(np.float64)
    trace = np.where(known > 0, diameter - np.nanmean(diameter), 0.0)
    pairs = correlate(known, known, method="fft")[len(known) - 1 :]
    products = correlate(trace, trace, method="fft")[len(known) - 1 :]
    correlation = products / np.maximum(pairs.round(), 1.0)
    first = math.floor(interval * (1 - INTERVAL_TOLERANCE))
    near = correlation[first : math.ceil(interval * (1 + INTERVAL_TOLERANCE)) + 1]
    if len(near) < 3 or near.max() < MIN_AUTOCORRELATION * correlation[0]:
        return False
    return 0 < int(near.argmax()) < len(near) - 1


def _extrema(
    trace: np.ndarray, distance: float, prominence: float
) -> list[tuple[int | None, int | None]]:
    """Find the columns (end-diastole, end-systole) of each beat.

    One of them is None if the piece begins or ends between the two.
    """
    diastoles = _inner_peaks(trace, distance, prominence)
    systoles = _inner_peaks(-trace, distance, prominence)
    if not len(diastoles):
        return [(None, int(s)) for s in systoles]
    before, after = systoles[systoles < diastoles[0]], systoles[systoles > diastoles[-1]]
    beats: list[tuple[int | None, int | None]] = [(None, int(s)) for s in before[-1:]]
    for ed, following in pairwise(diastoles):
        beats.append((int(ed), int(ed + np.argmin(trace[ed:following]))))
    beats.append((int(diastoles[-1]), int(after[0]) if len(after) else None))
    return beats


def _landmarks(
    trace: np.ndarray, ed: int | None, es: int | None
) -> tuple[float, float, float, float, float]:
    """Return the columns of end-diastole, end-systole and half contraction, and both diameters."""
    lvidd = np.nan if ed is None else float(trace[ed])
    lvids = np.nan if es is None else float(trace[es])
    half = np.nan if ed is None or es is None else _half_contraction(trace, ed, es)
    return np.nan if ed is None else ed, np.nan if es is None else es, half, lvidd, lvids


def _intervals(times: np.ndarray) -> np.ndarray:
    """Compute the time from each beat to the next one, (beats,); NaN if unknown.

    Args:
        times: Times of end-diastole, end-systole and half contraction, (beats, 3).
    """
    intervals = np.full(len(times), np.nan)
    for kind in (2, 1, 0):
        between = np.diff(times[:, kind])
        if np.isfinite(between).any():
            intervals[:-1] = between
            break
    return intervals


def _half_contraction(trace: np.ndarray, ed: int, es: int) -> float:
    """Find the last column, interpolated, where the diameter falls below the mean of its extrema.

    The extrema themselves are flat, so that their columns are imprecise in predicted masks.
    """
    middle = (trace[ed] + trace[es]) / 2
    if not trace[es] < middle:
        return np.nan
    above = ed + int(np.flatnonzero(trace[ed:es] > middle)[-1])
    return above + (trace[above] - middle) / (trace[above] - trace[above + 1])


def _inner_peaks(trace: np.ndarray, distance: float, prominence: float) -> np.ndarray:
    """Find the columns of prominent maxima, except for the first and the last column.

    The trace is padded with its minimum, so that a beat at the end of a piece keeps its prominence.
    """
    from scipy.signal import find_peaks

    padded = np.pad(trace, 1, constant_values=float(trace.min()))
    peaks, _ = find_peaks(padded, distance=max(distance, 1.0), prominence=prominence)
    peaks = peaks - 1
    return peaks[(peaks > 0) & (peaks < len(trace) - 1)]
