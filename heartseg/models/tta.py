"""Test-time augmentation: slightly changed views of an image, whose predictions are averaged.

Views stay within what networks are trained to see: small rotations and scales of apical views,
which are never mirrored, since that swaps septum and lateral wall; M-mode strips mirrored in time.
(Averaged predictions under augmentation: Wang et al., Neurocomputing 338, 2019, section 2.)
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
    """The views that a model looks at: all of the dataset's, or the image as it is."""
    return DATASETS[dataset].views if tta == "views" else (UNCHANGED,)


class Seen(nn.Module):
    """A view as a pair of inverse changes of square images (N, C, size, size)."""

    there: torch.Tensor
    back: torch.Tensor

    def __init__(self, view: View, size: int):
        super().__init__()
        self.view = view
        turned = (view.rotate_degrees, view.scale) != (0.0, 1.0)
        self.turned = turned
        if turned:  # as buffers: they follow the model to its device and into exported graphs
            there = _grid(view.rotate_degrees, view.scale, size)
            back = _grid(-view.rotate_degrees, 1 / view.scale, size)
            self.register_buffer("there", there, persistent=False)  # no part of its state
            self.register_buffer("back", back, persistent=False)

    def look(self, images: torch.Tensor) -> torch.Tensor:
        """The view of float images; what comes into view from beyond the border is 0, black."""
        if self.turned:
            grid = self.there.expand(images.shape[0], -1, -1, -1)
            images = F.grid_sample(images, grid, align_corners=False)
        return images.flip(3) if self.view.mirror else images

    def undo(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits of the view, back on the image; what was out of view repeats the border."""
        logits = logits.flip(3) if self.view.mirror else logits
        if self.turned:
            grid = self.back.expand(logits.shape[0], -1, -1, -1)
            logits = F.grid_sample(logits, grid, padding_mode="border", align_corners=False)
        return logits


def _grid(degrees: float, scale: float, size: int) -> torch.Tensor:
    """Where (1, size, size, 2) each pixel of the changed image comes from."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = torch.tensor([[[cosine, -sine, 0.0], [sine, cosine, 0.0]]]) / scale
    return F.affine_grid(matrix, [1, 1, size, size], align_corners=False)
