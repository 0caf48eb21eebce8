"""Square windows around the heart, cut from M-mode strips.

As in Echo2Pheno (its quality_classification/create_dataset.py) a window is as long as about three
heart beats, so its size in pixels differs from recording to recording.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import fft
from scipy.signal import find_peaks

from heartseg.config.data import Windows
from heartseg.data.strips.recordings import Strip
from heartseg.data.strips.traces import fill_between

LIKENESS = 0.03
"""Least prominence of a beat's peak in the autocorrelation. Real recordings have 0.06 to 1.2."""
FIRST_PEAK = 0.5
"""Two beats later a strip resembles itself as much as one beat later, so the first peak of at
least this part of the greatest prominence is a beat."""


@dataclass(frozen=True)
class Window:
    """A square part of a strip: `size` rows from `row` and as many columns from `column`."""

    strip: Strip
    row: int
    column: int
    size: int

    @property
    def name(self) -> str:
        """Names the place, so that it stays when other windows come or go."""
        return f"{self.strip.name}_w{self.column:06d}"

    @property
    def cut(self) -> tuple[slice, slice]:
        return slice(self.row, self.row + self.size), slice(self.column, self.column + self.size)

    @property
    def image(self) -> np.ndarray:
        """uint8 (size, size)."""
        return self.strip.image[self.cut]

    @property
    def mask(self) -> np.ndarray:
        """uint8 (size, size), 255 inside the LV."""
        rows, columns = self.cut
        upper, lower = self.strip.upper[columns], self.strip.lower[columns]
        inside = fill_between(upper, lower, len(self.strip.image))[rows]
        return np.where(inside, np.uint8(255), np.uint8(0))


def cut_windows(strip: Strip, wanted: np.ndarray, size: int, overlap: float) -> list[Window]:
    """Windows of one size over every run of wanted columns that is long enough.

    They are spread evenly from the run's first column to its last, and neighbours share at least
    the stated part. Each has the LV that it shows in the middle of its rows; where there are no
    traces, it has the middle of the strip there.

    Args:
        strip: the strip.
        wanted: columns that windows may show, bool (W,).
        size: rows and columns, at most the strip's rows.
        overlap: part of a window that the next one shows again, 0..1.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], wanted, [False]]).astype(np.int8)))
    windows = []
    for first, end in edges.reshape(-1, 2):
        room = int(end - first) - size
        if room < 0:
            continue
        count = math.ceil(room / max(size * (1 - overlap), 1)) + 1
        for column in np.linspace(first, end - size, count).round().astype(int):
            windows.append(Window(strip, _row(strip, int(column), size), int(column), size))
    return windows


def _row(strip: Strip, column: int, size: int) -> int:
    rows = len(strip.image)
    shown = slice(column, column + size)
    if strip.annotated[shown].all():
        middle = (strip.upper[shown].min() + strip.lower[shown].max()) / 2
    else:
        middle = rows / 2
    return int(np.clip(round(middle - size / 2), 0, rows - size))


def window_size(strip: Strip, config: Windows, rates: tuple[float, float]) -> tuple[int, str]:
    """Rows and columns of a strip's windows, and in words what they come from.

    Without a configured size: the configured number of beats, at least the LV with the configured
    margin, at most the strip's rows.

    Args:
        strip: the strip.
        config: the section of params.yaml.
        rates: slowest and fastest plausible heart rate in beats per minute.
    """
    rows, columns = strip.image.shape
    if config.size is not None:
        return min(config.size, rows), "as configured"
    annotated = strip.annotated
    picture = strip.mask[:, annotated] if annotated.any() else strip.image
    slowest, fastest = (60.0 / rate / strip.spacing[1] for rate in rates)
    beat = beat_columns(picture, fastest, slowest)
    size = rows
    why = (
        f"the whole depth, since no beat of {rates[0]:g} to {rates[1]:g}/min was found at "
        f"{strip.spacing[1]:g} s per column"
    )
    if beat is not None:
        size, why = round(config.beats * beat), f"{config.beats:g} beats of {beat} columns"
    if annotated.any():
        tall = np.nanmax(strip.lower) - np.nanmin(strip.upper)
        least = math.ceil(tall * (1 + 2 * config.margin))
        if size < least:
            size, why = least, "the LV and its margin"
    if size > rows:
        size, why = rows, "the whole depth"
    return min(size, columns), why


def beat_columns(picture: np.ndarray, shortest: float, longest: float) -> int | None:
    """Length of a beat in columns, from the strip's likeness to itself some columns later.

    Args:
        picture: strip or mask (H, W); only what changes along the columns counts.
        shortest, longest: plausible beats in columns.

    Returns:
        None where the strip is shorter than two beats or nothing in it comes again.
    """
    width = picture.shape[1]
    changes = picture - picture.mean(axis=1, keepdims=True, dtype=np.float64)
    length = fft.next_fast_len(2 * width, real=True)
    power = (np.abs(fft.rfft(changes, length)) ** 2).sum(axis=0)
    likeness = fft.irfft(power, length)[: width // 2 + 1]
    likeness /= np.arange(width, width - len(likeness), -1)  # columns that are compared
    peaks, about = find_peaks(likeness / max(likeness[0], 1e-12), prominence=LIKENESS)
    plausible = (peaks >= math.floor(shortest)) & (peaks <= math.ceil(longest))
    if not plausible.any():
        return None
    prominence = about["prominences"][plausible]
    return int(peaks[plausible][prominence >= FIRST_PEAK * prominence.max()][0])
