"""Inputs of any size for networks that halve their input several times."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def pad_to_multiple(images: torch.Tensor, multiple: int) -> torch.Tensor:
    """Repeat the last row and column of (N, C, H, W) until H and W are multiples of `multiple`.

    Undo it on the network's output with `[..., :H, :W]`.
    """
    height, width = images.shape[-2:]
    rows, columns = -height % multiple, -width % multiple
    if rows == 0 and columns == 0:
        return images
    return F.pad(images, (0, columns, 0, rows), mode="replicate")
