"""How images stand in a network's input channels."""

from __future__ import annotations

import numpy as np

from heartseg.data.sequences import resample_frames
from heartseg.errors import InputError
from heartseg.recipe import Recipe


def frames_of(channels: int) -> int:
    """Frames that a network of so many channels sees: three stand for one grey frame, in the
    colours that pretrained weights want."""
    return 1 if channels == 3 else channels


def check_frames(recipe: Recipe, frames: int) -> None:
    """Refuse images of another number of frames than the network takes.

    Raises:
        InputError: with the remedy.
    """
    channels = recipe.model.in_channels
    if frames != frames_of(channels):
        raise InputError(
            f"the prepared images have {frames} frame(s) and the recipe's network takes "
            f"{channels} channel(s); prepare images of {frames_of(channels)} frame(s) "
            "(datasets.camus.frames), or change the recipe's model.in_channels"
        )


def input_stacks(frames: np.ndarray, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """What a network of so many channels is given of a file, and which frames it segments.

    Args:
        frames: uint8 (T, H, W).
        channels: of the network.

    Returns:
        uint8 (K, C, H, W), and the numbers (K,) of the frames, from 0: all of them, or the two ends
        for a network that takes whole sequences.

    Raises:
        InputError: the network takes sequences, and this is a single image.
    """
    stacked = frames_of(channels)
    if stacked == 1:
        height, width = frames.shape[1:]
        shape = (len(frames), channels, height, width)
        return np.broadcast_to(frames[:, None], shape), np.arange(len(frames))
    if len(frames) < 2:
        raise InputError("the model takes sequences; give a 3-D NIfTI file, time last")
    forward = resample_frames(frames, stacked)
    return np.stack([forward, forward[::-1]]), np.array([0, len(frames) - 1])
