"""Join the frames of a scrolling M-mode display into strips.

From frame to frame the image moves to the left, and new columns appear on the right. The shift is
found by correlation of the pixels, because the speckle of an M-mode strip never repeats, even if
heart beats are alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from scipy import fft

MIN_OVERLAP = 16
"""Smallest overlap of two frames in columns. Fewer columns could be similar by chance."""
MIN_COMPARED = 8
"""Smallest number of compared columns. It is below MIN_OVERLAP, so that a shift with too little
overlap has a score of its own and is not mistaken for its neighbour."""
MIN_CORRELATION = 0.4
"""Smallest correlation of overlapping frames. On a real recording of a mouse with frames of 512
columns, it is at most 0.19 without overlap (120 pairs). With overlap it is 1 for the original, 0.73
after JPEG compression with quality 75, and 0.52 with quality 30."""


@dataclass
class JoinedFrames:
    """Result of `join_frames`.

    Attributes:
        strips: Strips uint8 (H, W) in the order of time. There are several if frames do not
            overlap.
        notes: Notes on repeated frames and on the ends of strips.
    """

    strips: list[np.ndarray] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def join_frames(frames: Iterable[np.ndarray]) -> JoinedFrames:
    """Join the frames of a recording into strips.

    A frame that equals the previous one is dropped. If two consecutive frames do not overlap, time
    is missing between them, so a new strip begins.

    Args:
        frames: Frames uint8 (H, W) of equal size, in the order of time.
    """
    joined = JoinedFrames()
    parts: list[list[np.ndarray]] = []
    repeated = 0
    last: np.ndarray | None = None
    for number, frame in enumerate(frames, start=1):
        shift = None if last is None else find_shift(last, frame)
        if shift is None:
            if last is not None:
                joined.notes.append(
                    f"frames {number - 1} and {number} do not overlap, so a new strip begins"
                )
            parts.append([frame])
        elif shift == 0:
            repeated += 1
        else:
            parts[-1].append(frame[:, -shift:])
        last = frame
    if repeated:
        joined.notes.append(f"{repeated} repeated frame(s) are not used")
    joined.strips = [np.concatenate(part, axis=1) for part in parts]
    return joined


def find_shift(before: np.ndarray, after: np.ndarray) -> int | None:
    """Return the number of columns by which the image moved to the left between two frames (H, W).

    Returns:
        0 for a repeated frame; None if the frames overlap by less than MIN_OVERLAP columns.
    """
    if np.array_equal(before, after):
        return 0
    scores = overlap_scores(before, after)
    best = int(scores.argmax())
    overlap = before.shape[1] - best
    return best if scores[best] >= MIN_CORRELATION and overlap >= MIN_OVERLAP else None


def overlap_scores(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the normalised cross-correlation of the overlap of two frames (H, W), by shift.

    Differences between neighbouring columns are correlated, because patterns that are constant over
    time, such as bands of reverberation, would correlate at every shift.

    Returns:
        float64 (W - MIN_COMPARED + 1,) in -1..1, for shifts from 0.
    """
    a, b = (np.diff(frame.astype(np.float64), axis=1) for frame in (before, after))
    width = a.shape[1]
    length = fft.next_fast_len(2 * width, real=True)
    spectrum = (fft.rfft(a, length) * fft.rfft(b, length).conj()).sum(axis=0)
    products = fft.irfft(spectrum, length)[:width]
    energy_a = np.cumsum((a**2).sum(axis=0)[::-1])[::-1]  # of the overlapping columns of a
    energy_b = np.cumsum((b**2).sum(axis=0))[::-1]  # of the overlapping columns of b
    scores = products / np.sqrt(np.maximum(energy_a * energy_b, 1.0))
    return scores[: max(width + 2 - MIN_COMPARED, 1)]
