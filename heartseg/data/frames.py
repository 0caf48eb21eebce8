"""Resample sequences of images to another number of frames."""

from __future__ import annotations

import numpy as np


def resample_frames(frames: np.ndarray, count: int) -> np.ndarray:
    """Resample a sequence by linear interpolation over normalised time.

    The frames are at the times 0, 1 / (T - 1), ..., 1, and the results at 0, 1 / (count - 1), ...,
    1, so the first and the last frame do not change. Half values are rounded to even.

    Args:
        frames: uint8 (T, H, W), T >= 2.
        count: Number of frames of the result, 2 or more.

    Returns:
        uint8 (count, H, W).

    Raises:
        ValueError: T or `count` is below 2.
    """
    if len(frames) < 2 or count < 2:
        raise ValueError(f"cannot resample {len(frames)} frame(s) to {count}: both must be >= 2")
    places = np.linspace(0, len(frames) - 1, count)
    before = np.minimum(places.astype(int), len(frames) - 2)
    resampled = np.empty((count, *frames.shape[1:]), np.uint8)
    for k, (place, left) in enumerate(zip(places, before, strict=True)):
        weight = place - left
        resampled[k] = np.rint((1 - weight) * frames[left] + weight * frames[left + 1])
    return resampled
