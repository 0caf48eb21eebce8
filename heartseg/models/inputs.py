"""How images stand in a network's input channels."""

from __future__ import annotations

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
