"""Decoding for a sweep, in a module by itself: the process that does it needs no Ray Tune."""

from __future__ import annotations

from pathlib import Path

import ray

from heartseg.gc_tuning import relax_gc


class Decoder:
    """An actor that decodes a prepared dataset at the input sizes that it is asked for.

    Args:
        prepared: the prepared dataset, absolute.
    """

    def __init__(self, prepared: Path):
        relax_gc()
        self.prepared = prepared
        self._decoded: dict[int, ray.ObjectRef] = {}

    def decode(self, input_size: int) -> list[ray.ObjectRef]:
        """One reference to the splits "train" and "val", each as `Resident.arrays`.

        A size is decoded the first time that it is asked for. The reference is in a list because
        Ray would send what it stands for otherwise.
        """
        from heartseg.data.resident import load_resident  # not above: the driver needs no torch

        if input_size not in self._decoded:
            self._decoded[input_size] = ray.put(
                {
                    split: load_resident(self.prepared, split, input_size).arrays()
                    for split in ("train", "val")
                }
            )
        return [self._decoded[input_size]]
