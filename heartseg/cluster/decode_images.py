"""The actor that decodes a sweep's images. Its process does not need to import Ray Tune."""

from __future__ import annotations

from pathlib import Path

import ray

from heartseg.gc_tuning import relax_gc


class Decoder:
    """An actor that decodes a prepared dataset, once for each requested input size.

    Args:
        prepared: Absolute path of the prepared dataset.
    """

    def __init__(self, prepared: Path):
        relax_gc()
        self.prepared = prepared
        self._decoded: dict[int, ray.ObjectRef] = {}

    def decode(self, input_size: int) -> list[ray.ObjectRef]:
        """Decode the images of an input size, unless they have been decoded before.

        Returns:
            A list with one reference to {"train": arrays, "val": arrays}, each as returned by
            `Resident.arrays`. Outside a list, Ray would replace the reference by its object.
        """
        from heartseg.data.resident import load_resident  # the driver does not need torch

        if input_size not in self._decoded:
            self._decoded[input_size] = ray.put(
                {
                    split: load_resident(self.prepared, split, input_size).arrays()
                    for split in ("train", "val")
                }
            )
        return [self._decoded[input_size]]
