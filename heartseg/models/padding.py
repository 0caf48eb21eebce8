"""Padding for networks that halve the resolution several times."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def pad_to_multiple(images: torch.Tensor, multiple: int) -> torch.Tensor:
    """Pad (N, C, H, W) at the bottom and right until H and W are multiples of `multiple`.

    The last row and column are repeated. Crop the network's output with `[..., :H, :W]`.
    """
    height, width = images.shape[-2:]
    rows, columns = -height % multiple, -width % multiple
    if rows == 0 and columns == 0:
        return images
    return F.pad(images, (0, columns, 0, rows), mode="replicate")
