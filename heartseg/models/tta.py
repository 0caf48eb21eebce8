"""Test-time augmentation: average the predictions of transformed copies ("views") of an image.

The views resemble the training images: apical views are slightly rotated and scaled, but never
mirrored, because that swaps septum and lateral wall; M-mode windows are mirrored in time. Method:
Wang et al., Neurocomputing 338, 2019, section 2.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from heartseg.datasets import DATASETS
from heartseg.datasets.spec import UNCHANGED, View

Tta = Literal["none", "views"]


def views_of(dataset: str, tta: Tta) -> tuple[View, ...]:
    """Return the views of a dataset, or only the unchanged image if `tta` is "none"."""
    return DATASETS[dataset].views if tta == "views" else (UNCHANGED,)


class TTATransform(nn.Module):
    """The transform of square images to a view, and its inverse for the view's logits.

    Args:
        view: Rotation, scale and mirroring.
        size: Rows and columns of the images.
    """

    forward_grid: torch.Tensor
    inverse_grid: torch.Tensor

    def __init__(self, view: View, size: int):
        super().__init__()
        self.view = view
        self.resamples = (view.rotate_degrees, view.scale) != (0.0, 1.0)
        if self.resamples:
            # Buffers follow the model to its device and into exported graphs. They are not
            # persistent, so the state dict does not contain them.
            forward = _grid(view.rotate_degrees, view.scale, size)
            inverse = _grid(-view.rotate_degrees, 1 / view.scale, size)
            self.register_buffer("forward_grid", forward, persistent=False)
            self.register_buffer("inverse_grid", inverse, persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Transform float images (N, C, size, size) to the view. Pixels from outside are 0."""
        if self.resamples:
            grid = self.forward_grid.expand(images.shape[0], -1, -1, -1)
            images = F.grid_sample(images, grid, align_corners=False)
        return images.flip(3) if self.view.mirror else images

    def inverse(self, logits: torch.Tensor) -> torch.Tensor:
        """Transform the view's logits (N, K, size, size) back to the image.

        Pixels outside the view get the logits at its border.
        """
        logits = logits.flip(3) if self.view.mirror else logits
        if self.resamples:
            grid = self.inverse_grid.expand(logits.shape[0], -1, -1, -1)
            logits = F.grid_sample(logits, grid, padding_mode="border", align_corners=False)
        return logits


def _grid(degrees: float, scale: float, size: int) -> torch.Tensor:
    """Compute the source coordinates (1, size, size, 2) of each pixel, for `grid_sample`."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = torch.tensor([[[cosine, -sine, 0.0], [sine, cosine, 0.0]]]) / scale
    return F.affine_grid(matrix, [1, 1, size, size], align_corners=False)
