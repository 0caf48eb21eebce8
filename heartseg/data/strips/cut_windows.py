"""Cut square windows around the heart from M-mode strips.

As in Echo2Pheno (quality_classification/create_dataset.py), a window is about three heart beats
long, so its size in pixels differs between recordings.
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

MIN_PROMINENCE = 0.03
"""Smallest prominence of the peak of a beat in the autocorrelation. Real recordings have 0.06 to
1.2."""
FIRST_PEAK_FRACTION = 0.5
"""The first peak with at least this fraction of the greatest prominence is one beat. The peak of
two beats can be as prominent as that of one beat."""


@dataclass(frozen=True)
class Window:
    """A square part of a strip, with `size` rows from `row` and `size` columns from `column`."""

    strip: Strip
    row: int
    column: int
    size: int

    @property
    def name(self) -> str:
        """Name with the first column, so that it does not depend on other windows."""
        return f"{self.strip.name}_w{self.column:06d}"

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.row, self.row + self.size), slice(self.column, self.column + self.size)

    @property
    def image(self) -> np.ndarray:
        """uint8 (size, size)."""
        return self.strip.image[self.slices]

    @property
    def mask(self) -> np.ndarray:
        """uint8 (size, size), 255 inside the LV."""
        rows, columns = self.slices
        upper, lower = self.strip.upper[columns], self.strip.lower[columns]
        inside = fill_between(upper, lower, len(self.strip.image))[rows]
        return np.where(inside, np.uint8(255), np.uint8(0))


def cut_windows(strip: Strip, wanted: np.ndarray, size: int, overlap: float) -> list[Window]:
    """Cut windows of one size from every run of wanted columns that is long enough.

    The windows of a run are evenly spaced from its first to its last column, and neighbours have at
    least the given overlap. A window is vertically centred on its LV, or on the strip if there are
    no traces.

    Args:
        strip: The strip.
        wanted: Columns that windows may contain, bool (W,).
        size: Number of rows and columns, at most the number of rows of the strip.
        overlap: Fraction of a window that is shared with the next one, 0..1.
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
    """Return the number of rows and columns of the windows of a strip, and its reason as text.

    Unless a size is configured, it is the configured number of beats, at least the height of the LV
    with the configured margin, and at most the number of rows of the strip.

    Args:
        strip: The strip.
        config: Section `windows` of params.yaml.
        rates: Slowest and fastest plausible heart rate in beats per minute.
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
        f"the whole depth, because no beat of {rates[0]:g} to {rates[1]:g}/min was found at "
        f"{strip.spacing[1]:g} s per column"
    )
    if beat is not None:
        size, why = round(config.beats * beat), f"{config.beats:g} beats of {beat} columns"
    if annotated.any():
        height = np.nanmax(strip.lower) - np.nanmin(strip.upper)
        least = math.ceil(height * (1 + 2 * config.margin))
        if size < least:
            size, why = least, "the LV with its margin"
    if size > rows:
        size, why = rows, "the whole depth"
    return min(size, columns), why


def beat_columns(picture: np.ndarray, shortest: float, longest: float) -> int | None:
    """Estimate the length of a beat in columns from the autocorrelation of a strip.

    Args:
        picture: Strip or mask (H, W). The mean of each row is subtracted.
        shortest, longest: Plausible lengths of a beat in columns.

    Returns:
        None if the strip is shorter than two beats or is not periodic.
    """
    width = picture.shape[1]
    changes = picture - picture.mean(axis=1, keepdims=True, dtype=np.float64)
    length = fft.next_fast_len(2 * width, real=True)
    power = (np.abs(fft.rfft(changes, length)) ** 2).sum(axis=0)
    correlation = fft.irfft(power, length)[: width // 2 + 1]
    correlation /= np.arange(width, width - len(correlation), -1)  # number of compared columns
    normalised = correlation / max(correlation[0], 1e-12)
    peaks, properties = find_peaks(normalised, prominence=MIN_PROMINENCE)
    plausible = (peaks >= math.floor(shortest)) & (peaks <= math.ceil(longest))
    if not plausible.any():
        return None
    prominence = properties["prominences"][plausible]
    return int(peaks[plausible][prominence >= FIRST_PEAK_FRACTION * prominence.max()][0])
