"""How images stand in a network's input channels."""

from __future__ import annotations

import numpy as np

from heartseg.config.recipe import Recipe
from heartseg.data.frames import resample_frames
from heartseg.errors import InputError


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
