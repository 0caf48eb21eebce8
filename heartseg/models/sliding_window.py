"""Segmentation of M-mode strips of any length by a model of square windows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

WINDOWS_AT_ONCE = 8
"""Batch size, which limits the memory that long strips need."""


def predict_strip(
    predict: Callable[[np.ndarray], np.ndarray], image: np.ndarray, width: int, overlap: float
) -> np.ndarray:
    """Segment the LV by a weighted majority vote of overlapping windows.

    Packaged models return label maps, so there are no probabilities to average. The weight of a
    window's vote falls linearly from 1 in its centre to almost 0 at its ends, where the network
    sees context on one side only. The gradual weights avoid seams between windows. The strip is
    extended by its mirror image in time, so that its ends are in the centre of windows and strips
    narrower than a window fill one.

    Args:
        predict: Function from images uint8 (N, 1, H, width) to label maps uint8 (N, H, width).
        image: Grey values uint8 (H, W).
        width: Columns of a window.
        overlap: Fraction of a window that overlaps with the next one, in [0, 1).

    Returns:
        Mask of the LV, bool (H, W).
    """
    columns = image.shape[1]
    step = max(round(width * (1 - overlap)), 1)
    padded = np.pad(image, ((0, 0), (width, width)), mode="symmetric")
    starts = range(step, width + columns, step)  # all windows that intersect the strip
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
    """Find columns of bad quality by the vote of `predict_strip`.

    A quality model assigns the same label to all pixels of a window, so all rows of the result are
    equal. A column is bad if most windows around it are bad.

    Args:
        classify: Function from images uint8 (N, 1, H, width) to label maps uint8 (N, H, width) with
            the label 1 for bad.
        image: Grey values uint8 (H, W).
        width: Columns of a window.
        overlap: Fraction of a window that overlaps with the next one, in [0, 1).

    Returns:
        Whether each column is bad, bool (W,).
    """
    return predict_strip(classify, image, width, overlap)[0]
