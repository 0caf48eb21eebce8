"""Decoding for a sweep, in a module by itself: the process that does it needs no Ray Tune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from heartseg.collector import collect_seldom

if TYPE_CHECKING:
    from heartseg.data.resident import Arrays


class Decoder:
    """An actor that decodes one input size after the other."""

    def decode(self, prepared: Path, input_size: int) -> dict[str, Arrays]:
        """The splits "train" and "val" of a prepared dataset, as `Resident.arrays`."""
        collect_seldom()
        from heartseg.data.resident import load_resident  # not above: the driver needs no torch

        splits = ("train", "val")
        return {split: load_resident(prepared, split, input_size).arrays() for split in splits}
