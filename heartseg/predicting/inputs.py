"""What a network is given of a file's frames."""

from __future__ import annotations

import numpy as np

from heartseg.data.sequences import resample_frames
from heartseg.errors import InputError
from heartseg.models.inputs import frames_of


def segmented_frames(count: int, channels: int) -> np.ndarray:
    """Numbers (K,), from 0, of the frames that a network of so many channels segments of a file
    with `count` of them: all, or the two ends where it takes whole sequences.

    Raises:
        InputError: the network takes sequences, and this is a single image.
    """
    if frames_of(channels) == 1:
        return np.arange(count)
    if count < 2:
        raise InputError("the model takes sequences; give a 3-D NIfTI file, time last")
    return np.array([0, count - 1])


def input_stacks(frames: np.ndarray, channels: int) -> np.ndarray:
    """What is segmented at a time: uint8 (T, H, W) as (T, 1, H, W), or as (2, S, H, W) for a
    network that takes sequences of S frames; `segmented_frames` says which frames these are."""
    stacked = frames_of(channels)
    if stacked == 1:
        return frames[:, None]
    forward = resample_frames(frames, stacked)
    return np.stack([forward, forward[::-1]])
