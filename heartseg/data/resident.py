"""Prepared images, decoded and resized once, that stay in memory as uint8 during a training."""

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
"""The attributes of `Resident`, as arguments of `Resident.from_numpy`."""
ABOUT = ["patient", "view", "phase", "height", "width", "spacing_row", "spacing_col", "species"]


@dataclass(frozen=True)
class Resident:
    """All images of a split at one input size S. The tensors are never modified in place.

    Attributes:
        images: uint8 (N, C, S, S). C is 1, or the number of frames of a sequence.
        masks: Label maps uint8 (N, S, S).
        case_ids: N case ids, in the order of the prepared dataset.
        about: N rows of the prepared dataset with the columns ABOUT, for clinical metrics.
    """

    images: torch.Tensor
    masks: torch.Tensor
    case_ids: list[str]
    about: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=ABOUT))

    def __len__(self) -> int:
        return len(self.case_ids)

    @property
    def nbytes(self) -> int:
        """Size of the arrays in bytes, N * S * S * (C + 1)."""
        return self.images.nbytes + self.masks.nbytes

    def to(self, device: torch.device) -> Resident:
        """Return a copy whose images and masks are on a device."""
        return replace(self, images=self.images.to(device), masks=self.masks.to(device))

    def batch(self, rows: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images (n, C, S, S) and masks (n, S, S) of some rows on a device.

        Args:
            rows: Row numbers, int64 (n,), on the CPU.
            device: Device of the result. `images` and `masks` may be on another one.
        """
        rows = rows.to(self.images.device)
        return (
            self.images[rows].to(device, non_blocking=True),
            self.masks[rows].to(device, non_blocking=True),
        )

    def rename_cases(self, shown: Callable[[str], str]) -> Resident:
        """Return the same images with other case ids.

        Args:
            shown: Function that maps a case id to the new one.
        """
        return replace(self, case_ids=[shown(case_id) for case_id in self.case_ids])

    def select_patients(self, names: Collection[str]) -> Resident:
        """Return a copy of the images of some patients."""
        rows = np.flatnonzero(self.about["patient"].isin(names))
        return Resident(
            self.images[rows],
            self.masks[rows],
            [self.case_ids[row] for row in rows],
            self.about.iloc[rows].reset_index(drop=True),
        )

    def arrays(self) -> Arrays:
        """Return the attributes as NumPy arrays without a copy, for Ray's object store."""
        return self.images.numpy(), self.masks.numpy(), self.case_ids, self.about

    @classmethod
    def from_numpy(
        cls, images: np.ndarray, masks: np.ndarray, case_ids: list[str], about: pd.DataFrame
    ) -> Resident:
        """Create from the result of `arrays`, without a copy."""
        with warnings.catch_warnings():  # arrays from an object store are read-only
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return cls(torch.from_numpy(images), torch.from_numpy(masks), case_ids, about)


def load_resident(
    path: Path | str, split: str | None, input_size: int, threads: int | None = None
) -> Resident:
    """Decode a split of a prepared dataset and resize it to (input_size, input_size).

    Images are resized like in the packaged model (bilinear, antialiased), masks by nearest-exact
    interpolation.

    Args:
        path: Path of the prepared Parquet file.
        split: "train", "val" or "test"; None for all rows.
        input_size: S, the height and width in pixels.
        threads: Number of threads; None for one per core.

    Raises:
        InputError: The file is missing, or was not written by `heartseg prepare`.
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
