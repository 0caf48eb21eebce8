"""The beats of an M-mode trace: end-diastoles, end-systoles, intervals and their variability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from heartseg.metrics.walls import Walls

SMOOTHING = 0.25
"""Length of the smoothing window as a part of the shortest plausible beat."""
PROMINENCE = 0.3
"""A beat's extremum stands out by at least this part of the trace's range."""
PREMATURE = 0.75
"""A premature beat may follow sooner than at the fastest steady rate: after this part of its
interval."""


CLEAN = 0.016
"""Standard deviation of what smoothing removes, as a part of the trace's range, up to which a trace
counts as free of noise: twice that of a mask whose walls are exact to the pixel."""
REPEATED = 0.4
"""Least autocorrelation of a noisy trace one beat later."""
SAME_INTERVAL = 0.06
"""Relative difference up to which the beats' median interval and the trace's period agree."""


@dataclass(frozen=True)
class Beat:
    """From an end-diastole to the next one; NaN for what the trace does not show of it.

    Attributes:
        diastole_s, systole_s: time from the strip's beginning of the greatest and of the
            smallest LV diameter.
        contraction_s: when half of the contraction is done, the trace's sharpest point in time.
        lvidd_mm, lvids_mm: LV inner diameter at end-diastole and at end-systole.
        interval_s: until the next beat; NaN where none follows, where its rate is implausible, or
            where the trace is so noisy that its beats cannot be counted.
    """

    diastole_s: float
    systole_s: float
    contraction_s: float
    lvidd_mm: float
    lvids_mm: float
    interval_s: float


def smooth_pieces(walls: Walls, shortest_beat: float) -> list[np.ndarray]:
    """Diameter in mm of each piece, smoothed; `shortest_beat` in columns.

    Savitzky-Golay: parabolas keep the height of an extremum, a moving mean would not.
    """
    from scipy.signal import savgol_filter  # here: most commands that import this need it not

    smoothed = []
    for piece in walls.pieces:
        trace = walls.bridged(piece)
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
    """The beats of every piece of the trace, in order of time.

    End-diastoles are the maxima of the smoothed diameter that stand out and are at least the
    shortest plausible time apart; end-systole is the minimum between two of them. A piece may
    begin or end within a beat, which is then incomplete. Intervals are those between half
    contractions; a piece that shows no two of them gives those between end-systoles, else
    end-diastoles, whose times are less sharp.

    Noise makes extrema of its own. So a noisy trace must repeat itself after the median interval
    between its beats; otherwise no interval is given. An irregular heart passes if its trace is
    clean.

    Args:
        walls: of the strip.
        mm_per_row: a step of one row is no beat, the mask resolves nothing finer.
        s_per_column: time of a column.
        minimal_rate: slowest plausible heart rate in beats per minute; in a longer interval a
            beat was overlooked.
        maximal_rate: fastest plausible steady one.
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
    noisy = _noise(walls, traces) > CLEAN * float(high - low)
    if len(known) and noisy and not _repeats(walls.diameter, np.median(known) / s_per_column):
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
    """Standard deviation (n - 1) of the intervals between beats in ms; NaN for less than two.

    Task Force of the ESC and NASPE, Circulation 93:1043-1065, 1996; there of normal beats by
    ECG, here of all mechanical beats.
    """
    intervals = [b.interval_s for beats in pieces for b in beats if np.isfinite(b.interval_s)]
    return float(np.std(intervals, ddof=1)) * 1000 if len(intervals) > 1 else np.nan


def rmssd_ms(pieces: Sequence[Sequence[Beat]]) -> float:
    """Root mean square of the differences of successive intervals in ms (Task Force 1996).

    NaN where no two successive intervals are known.
    """
    differences = np.concatenate(
        [np.diff([b.interval_s for b in beats]) for beats in [*pieces, []]]
    )
    known = differences[np.isfinite(differences)]
    return float(np.sqrt(np.mean(known**2))) * 1000 if len(known) else np.nan


def _noise(walls: Walls, smoothed: Sequence[np.ndarray]) -> float:
    """Standard deviation in mm of what smoothing takes from the pieces of a trace."""
    raw = np.concatenate([walls.bridged(piece) for piece in walls.pieces])
    return float(np.std(raw - np.concatenate(smoothed)))


def _repeats(diameter: np.ndarray, interval: float) -> bool:
    """Whether a trace (W,), NaN where unknown, is like itself after an interval in columns.

    Its autocorrelation over the pairs of known columns must have a peak near that lag. Noise does
    not move that peak, as it differs from beat to beat.
    """
    from scipy.signal import correlate

    seen = np.isfinite(diameter).astype(np.float64)
    trace = np.where(seen > 0, diameter - np.nanmean(diameter), 0.0)
    pairs = correlate(seen, seen, method="fft")[len(seen) - 1 :]
    products = correlate(trace, trace, method="fft")[len(seen) - 1 :]
    likeness = products / np.maximum(pairs.round(), 1.0)
    first = math.floor(interval * (1 - SAME_INTERVAL))
    near = likeness[first : math.ceil(interval * (1 + SAME_INTERVAL)) + 1]
    if len(near) < 3 or near.max() < REPEATED * likeness[0]:
        return False
    return 0 < int(near.argmax()) < len(near) - 1


def _extrema(
    trace: np.ndarray, distance: float, prominence: float
) -> list[tuple[int | None, int | None]]:
    """(end-diastole, end-systole) of each beat; None where the piece begins or ends between."""
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
    """Columns of end-diastole, end-systole and half contraction, and the two diameters."""
    lvidd = np.nan if ed is None else float(trace[ed])
    lvids = np.nan if es is None else float(trace[es])
    half = np.nan if ed is None or es is None else _half_contraction(trace, ed, es)
    return np.nan if ed is None else ed, np.nan if es is None else es, half, lvidd, lvids


def _intervals(times: np.ndarray) -> np.ndarray:
    """Time from each beat to the next one, (beats,); NaN where not known.

    Args:
        times: of end-diastole, end-systole and half contraction, (beats, 3).
    """
    intervals = np.full(len(times), np.nan)
    for kind in (2, 1, 0):
        between = np.diff(times[:, kind])
        if np.isfinite(between).any():
            intervals[:-1] = between
            break
    return intervals


def _half_contraction(trace: np.ndarray, ed: int, es: int) -> float:
    """Where the diameter last falls through the middle of its two extrema, between columns.

    The extrema themselves are flat, and on a predicted mask their columns jump about.
    """
    middle = (trace[ed] + trace[es]) / 2
    if not trace[es] < middle:
        return np.nan
    above = ed + int(np.flatnonzero(trace[ed:es] > middle)[-1])
    return above + (trace[above] - middle) / (trace[above] - trace[above + 1])


def _inner_peaks(trace: np.ndarray, distance: float, prominence: float) -> np.ndarray:
    """Columns of the maxima that stand out, apart from the trace's first and last column.

    With its ends pulled down, a beat that the window cuts keeps its full prominence.
    """
    from scipy.signal import find_peaks

    padded = np.pad(trace, 1, constant_values=float(trace.min()))
    peaks, _ = find_peaks(padded, distance=max(distance, 1.0), prominence=prominence)
    peaks = peaks - 1
    return peaks[(peaks > 0) & (peaks < len(trace) - 1)]
