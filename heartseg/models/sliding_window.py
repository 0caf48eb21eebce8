"""Label maps of strips of any length from a model of square windows, joined without seams."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

WINDOWS_AT_ONCE = 8  # bounds the memory for long strips


def predict_strip(
    predict: Callable[[np.ndarray], np.ndarray], image: np.ndarray, width: int, overlap: float
) -> np.ndarray:
    """Mask of the LV, boolean (H, W), by a weighted vote of overlapping windows.

    A packaged model gives label maps, so there are no probabilities to average. Each window's
    vote on a column has the weight of a triangle, 1 in the window's middle and next to 0 at its
    ends, where a network sees the heart on one side only; more than half of the weight decides.
    Since weights rise and fall gradually, no window begins or ends to count anywhere, as it does
    where each column is taken from one window. The strip is continued by its mirror image in
    time, so that its ends lie in windows' middles too, and strips narrower than a window fill it.

    Args:
        predict: uint8 (N, 1, H, width) -> uint8 label maps (N, H, width).
        image: uint8 (H, W).
        width: columns of a window.
        overlap: part of a window that the next one covers too, 0 to below 1.
    """
    columns = image.shape[1]
    step = max(round(width * (1 - overlap)), 1)
    padded = np.pad(image, ((0, 0), (width, width)), mode="symmetric")
    starts = range(step, width + columns, step)  # every window that reaches into the strip
    middle = (width - 1) / 2
    weight = (1 - np.abs(np.arange(width) - middle) / (middle + 1)).astype(np.float32)
    votes = np.zeros(padded.shape, np.float32)
    total = np.zeros(padded.shape[1], np.float32)
    for k in range(0, len(starts), WINDOWS_AT_ONCE):
        batch = starts[k : k + WINDOWS_AT_ONCE]
        labels = predict(np.stack([padded[None, :, s : s + width] for s in batch]))
        for start, window in zip(batch, labels, strict=True):
            votes[:, start : start + width] += weight * (window > 0)
            total[start : start + width] += weight
    inside = slice(width, width + columns)
    return votes[:, inside] > total[inside] / 2


def bad_columns(
    classify: Callable[[np.ndarray], np.ndarray], image: np.ndarray, width: int, overlap: float
) -> np.ndarray:
    """Columns of bad quality, bool (W,), by the same vote of overlapping windows.

    A quality model gives a window one label in all its pixels, so every row of the strip's label
    map is alike: a column is bad where the windows around it mostly are.

    Args:
        classify: uint8 (N, 1, H, width) -> uint8 label maps (N, H, width), 1 is bad.
        image: uint8 (H, W).
        width: columns of a window.
        overlap: part of a window that the next one covers too, 0 to below 1.
    """
    return predict_strip(classify, image, width, overlap)[0]
