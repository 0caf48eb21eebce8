"""Frames of a scrolling M-mode display, joined into strips.

Between two frames of a recording the picture moves to the left, and new columns appear at the
right. How far it moved is found in the pixels: the speckle of an M-mode strip changes from
column to column and never comes again, however alike two heart beats are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from scipy import fft

LEAST_OVERLAP = 16  # columns; fewer could agree by chance
COMPARED = 8  # columns, so that a shift beside one of too little overlap is not taken for it
SAME = 0.4
"""Correlation from which on two frames overlap. On a real recording of a mouse, frames of 512
columns without any overlap reach 0.19 at best (120 pairs), overlapping ones 1 as stored, 0.73
after JPEG compression of quality 75 and 0.52 of quality 30."""


@dataclass
class Joined:
    """What came of a recording's frames.

    Attributes:
        strips: uint8 (H, W), in the order of time; more than one where frames do not overlap.
        notes: what was dropped and where a strip ends, in words.
    """

    strips: list[np.ndarray] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def join_frames(frames: Iterable[np.ndarray]) -> Joined:
    """Join the frames uint8 (H, W) of a recording, all of one size, in the order of time.

    A frame that repeats the one before it is dropped. Where two frames have nothing in common
    time is missing between them, so a new strip begins.
    """
    joined = Joined()
    parts: list[list[np.ndarray]] = []
    repeated = 0
    last: np.ndarray | None = None
    for number, frame in enumerate(frames, start=1):
        shift = None if last is None else find_shift(last, frame)
        if shift is None:
            if last is not None:
                joined.notes.append(
                    f"frames {number - 1} and {number} do not overlap: a new strip begins"
                )
            parts.append([frame])
        elif shift == 0:
            repeated += 1
        else:
            parts[-1].append(frame[:, -shift:])
        last = frame
    if repeated:
        joined.notes.append(f"{repeated} repeated frame(s) dropped")
    joined.strips = [np.concatenate(part, axis=1) for part in parts]
    return joined


def find_shift(before: np.ndarray, after: np.ndarray) -> int | None:
    """Columns by which the picture moved to the left from one frame (H, W) to the next.

    Returns:
        0 for a repeated frame, None where they do not overlap by LEAST_OVERLAP columns or more.
    """
    if np.array_equal(before, after):
        return 0
    scores = overlap_scores(before, after)
    best = int(scores.argmax())
    overlap = before.shape[1] - best
    return best if scores[best] >= SAME and overlap >= LEAST_OVERLAP else None


def overlap_scores(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Normalised cross-correlation of the part that two frames share, for every shift from 0.

    Of the differences between neighbouring columns: what stays the same over time, as the bands
    of reverberation do, would agree at every shift.

    Returns:
        float64 (W - COMPARED + 1,) within -1..1.
    """
    a, b = (np.diff(frame.astype(np.float64), axis=1) for frame in (before, after))
    width = a.shape[1]
    length = fft.next_fast_len(2 * width, real=True)
    spectrum = (fft.rfft(a, length) * fft.rfft(b, length).conj()).sum(axis=0)
    products = fft.irfft(spectrum, length)[:width]
    energy_a = np.cumsum((a**2).sum(axis=0)[::-1])[::-1]  # of a's columns from the shift on
    energy_b = np.cumsum((b**2).sum(axis=0))[::-1]  # of b's columns that they fall on
    scores = products / np.sqrt(np.maximum(energy_a * energy_b, 1.0))
    return scores[: max(width + 2 - COMPARED, 1)]
