"""Resize images to the input size of a network, equally in training and in the packaged model."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def resize_images(images: torch.Tensor, size: int) -> torch.Tensor:
    """Resize images by antialiased bilinear interpolation, rounded to whole gray values.

    Args:
        images: uint8 (N, C, H, W).
        size: Height and width of the result in pixels.

    Returns:
        uint8 (N, C, size, size).
    """
    resized = F.interpolate(
        images.float(), size=(size, size), mode="bilinear", align_corners=False, antialias=True
    )
    return resized.round().to(torch.uint8)
