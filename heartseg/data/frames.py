"""Sequences of images with another number of frames."""

from __future__ import annotations

import numpy as np


def resample_frames(frames: np.ndarray, count: int) -> np.ndarray:
    """uint8 (T, H, W) to uint8 (count, H, W) by linear interpolation over normalised time.

    The frames lie at the times 0, 1 / (T - 1), ..., 1, the results at 0, 1 / (count - 1), ..., 1:
    the first and the last frame stay as they are. Half values round to even.

    Raises:
        ValueError: T or `count` is below 2.
    """
    if len(frames) < 2 or count < 2:
        raise ValueError(f"need two frames or more, got {len(frames)} for {count}")
    places = np.linspace(0, len(frames) - 1, count)
    before = np.minimum(places.astype(int), len(frames) - 2)
    resampled = np.empty((count, *frames.shape[1:]), np.uint8)
    for k, (place, left) in enumerate(zip(places, before, strict=True)):
        weight = place - left
        resampled[k] = np.rint((1 - weight) * frames[left] + weight * frames[left + 1])
    return resampled
