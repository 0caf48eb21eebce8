"""The one way in which images reach the network's size, in training and in the packaged model."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def resize_images(images: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 (N, C, H, W) to uint8 (N, C, size, size): bilinear, antialiased, rounded."""
    resized = F.interpolate(
        images.float(), size=(size, size), mode="bilinear", align_corners=False, antialias=True
    )
    return resized.round().to(torch.uint8)
