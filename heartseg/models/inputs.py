"""How the frames of an image are arranged in the input channels of a network."""

from __future__ import annotations

import numpy as np

from heartseg.config.recipe import Recipe
from heartseg.data.frames import resample_frames
from heartseg.errors import InputError


def frame_count(channels: int) -> int:
    """Return the number of frames that a network with this number of input channels takes.

    Three channels are one grey frame, repeated for weights that were trained on colour images.
    """
    return 1 if channels == 3 else channels


def check_frames(recipe: Recipe, frames: int) -> None:
    """Check that prepared images have as many frames as the recipe's network takes.

    Raises:
        InputError: The numbers differ.
    """
    channels = recipe.model.in_channels
    if frames != frame_count(channels):
        raise InputError(
            f"the prepared images have {frames} frame(s), but the recipe's network has "
            f"{channels} input channel(s); prepare images with {frame_count(channels)} frame(s) "
            "(datasets.camus.frames), or change the recipe's model.in_channels"
        )


def segmented_frames(count: int, channels: int) -> np.ndarray:
    """Return the indices (K,), from 0, of the frames of a file that a network segments.

    Args:
        count: Number of frames in the file.
        channels: Input channels of the network.

    Returns:
        All indices, or the first and the last one if the network takes sequences.

    Raises:
        InputError: The network takes sequences, and the file contains a single image.
    """
    if frame_count(channels) == 1:
        return np.arange(count)
    if count < 2:
        raise InputError("the model takes sequences; use a 3-D NIfTI file, time last")
    return np.array([0, count - 1])


def input_stacks(frames: np.ndarray, channels: int) -> np.ndarray:
    """Arrange frames as network inputs, one per frame of `segmented_frames`.

    Args:
        frames: uint8 (T, H, W).
        channels: Input channels of the network.

    Returns:
        uint8 (T, 1, H, W); or (2, S, H, W) for a network that takes sequences of S frames: the
        sequence forwards and backwards, because the network segments the first frame.
    """
    length = frame_count(channels)
    if length == 1:
        return frames[:, None]
    sequence = resample_frames(frames, length)
    return np.stack([sequence, sequence[::-1]])
