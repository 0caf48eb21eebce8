"""Prepared images decoded and resized once, held in memory as uint8 for the whole training."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import interpolate

from heartseg.data.prepared import (
    decode_image,
    decode_png,
    map_in_order,
    read_metadata,
    read_prepared,
)
from heartseg.data.resize import resize_images

Arrays = tuple[np.ndarray, np.ndarray, list[str], pd.DataFrame]
"""Images, masks, case ids and about, of a `Resident`."""
ABOUT = ["patient", "view", "phase", "height", "width", "spacing_row", "spacing_col", "species"]


@dataclass(frozen=True)
class Resident:
    """All images of a split at one input size S; the tensors are never written in place.

    Attributes:
        images: uint8 (N, C, S, S), C = 1, or the frames of a stacked sequence.
        masks: uint8 (N, S, S), label values.
        case_ids: N, in the order of the prepared dataset.
        about: N rows of the prepared dataset without the pixels (ABOUT), for clinical metrics.
    """

    images: torch.Tensor
    masks: torch.Tensor
    case_ids: list[str]
    about: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=ABOUT))

    def __len__(self) -> int:
        return len(self.case_ids)

    @property
    def nbytes(self) -> int:
        """Bytes that the arrays take: N * S * S * (C + 1)."""
        return self.images.nbytes + self.masks.nbytes

    def to(self, device: torch.device) -> Resident:
        """The same images on a device for good."""
        return replace(self, images=self.images.to(device), masks=self.masks.to(device))

    def batch(self, rows: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (n, C, S, S) and masks (n, S, S) of some rows, on the device.

        Args:
            rows: int64 (n,) on the CPU.
            device: where the batch is wanted; the arrays may be elsewhere.
        """
        rows = rows.to(self.images.device)
        return (
            self.images[rows].to(device, non_blocking=True),
            self.masks[rows].to(device, non_blocking=True),
        )

    def renamed(self, shown: Callable[[str], str]) -> Resident:
        """The same images under other case ids."""
        return replace(self, case_ids=[shown(case_id) for case_id in self.case_ids])

    def of_patients(self, names: Collection[str]) -> Resident:
        """A copy of the images of some patients."""
        rows = np.flatnonzero(self.about["patient"].isin(names))
        return Resident(
            self.images[rows],
            self.masks[rows],
            [self.case_ids[row] for row in rows],
            self.about.iloc[rows].reset_index(drop=True),
        )

    def arrays(self) -> Arrays:
        """Pixels without a copy, for Ray's object store."""
        return self.images.numpy(), self.masks.numpy(), self.case_ids, self.about

    @classmethod
    def from_numpy(
        cls, images: np.ndarray, masks: np.ndarray, case_ids: list[str], about: pd.DataFrame
    ) -> Resident:
        """The inverse of `arrays`, without a copy."""
        with warnings.catch_warnings():  # arrays from an object store are read-only, and so are we
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return cls(torch.from_numpy(images), torch.from_numpy(masks), case_ids, about)


def load_resident(
    path: Path | str, split: str | None, input_size: int, threads: int | None = None
) -> Resident:
    """Decode one split, or all, of the prepared dataset and resize it to (input_size, input_size).

    Images are resized as the packaged model does (bilinear, antialiased), masks by nearest-exact.

    Args:
        path: the prepared Parquet file.
        split: "train", "val" or "test"; None for all.
        input_size: S, rows and columns in pixels.
        threads: all cores where None.

    Raises:
        InputError: the file is missing or was not written by `heartseg prepare`.
    """
    table = read_prepared(path, split)
    frames = read_metadata(path).get("frames", 1)
    images = torch.empty((len(table), frames, input_size, input_size), dtype=torch.uint8)
    masks = torch.empty((len(table), input_size, input_size), dtype=torch.uint8)

    def fill(row: int) -> None:
        pixels = decode_image(table["image"].iloc[row], table["height"].iloc[row])
        image = torch.from_numpy(pixels)[None]
        mask = torch.from_numpy(decode_png(table["mask"].iloc[row]))[None, None]
        images[row] = resize_images(image, input_size)[0]
        masks[row] = interpolate(mask, size=(input_size, input_size), mode="nearest-exact")[0, 0]

    for _ in map_in_order(fill, range(len(table)), threads or os.cpu_count() or 1):
        pass
    return Resident(images, masks, list(table["case_id"]), table[ABOUT].reset_index(drop=True))
