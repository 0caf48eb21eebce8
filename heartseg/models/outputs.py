"""Conversion of logits to labels and probabilities, and the mean of several predictions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from heartseg.config.recipe import Recipe
from heartseg.datasets import DATASETS


def output_channels(recipe: Recipe) -> int:
    """Return the number of logits per pixel.

    It is the number of labels, or 1 if a single sigmoid decides between two labels.
    """
    labels = len(DATASETS[recipe.dataset].labels)
    return 1 if uses_sigmoids(recipe) and labels == 2 else labels


def uses_sigmoids(recipe: Recipe) -> bool:
    """Return whether the network has one sigmoid per channel instead of a softmax over them."""
    return recipe.loss == "one_vs_rest_bce"


def predicted_labels(logits: torch.Tensor) -> torch.Tensor:
    """Convert logits (N, K, H, W) to label maps uint8 (N, H, W).

    Each pixel gets the label with the largest logit. A single channel gives label 1 if its sigmoid
    is above 0.5, and label 0 otherwise.
    """
    if logits.shape[1] == 1:
        return (logits[:, 0] > 0).to(torch.uint8)
    return logits.argmax(1).to(torch.uint8)


def probabilities(logits: torch.Tensor, sigmoids: bool) -> torch.Tensor:
    """Convert logits to class probabilities.

    Args:
        logits: (N, K, H, W). A single channel is the logit of label 1 of two labels.
        sigmoids: Whether each channel is a sigmoid; see `uses_sigmoids`. The sigmoids of several
            labels are divided by their sum.

    Returns:
        Probabilities float32 (N, labels, H, W) with sum 1 over the labels.
    """
    if logits.shape[1] == 1:
        return torch.cat((-logits, logits), 1).float().sigmoid()
    if sigmoids:
        each = logits.float().sigmoid()
        return each / each.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return logits.float().softmax(1)


def mean_logits(parts: Sequence[torch.Tensor], sigmoids: bool) -> torch.Tensor:
    """Average several predictions as probabilities (Lakshminarayanan et al., NeurIPS 2017, 2.4).

    Args:
        parts: Logits (N, K, H, W) of each prediction.
        sigmoids: Whether each channel is a sigmoid; see `uses_sigmoids`.

    Returns:
        Logits (N, K, H, W) of the mean probabilities. A single part is returned unchanged.
    """
    if len(parts) == 1:
        return parts[0]
    if sigmoids or parts[0].shape[1] == 1:
        mean = torch.stack([part.sigmoid() for part in parts]).mean(0)
        return torch.logit(mean, eps=1e-7)
    mean = torch.stack([part.softmax(1) for part in parts]).mean(0)
    return mean.clamp(min=torch.finfo(mean.dtype).tiny).log()


class Ensemble(nn.Module):
    """Several networks whose probabilities are averaged; the output is logits.

    Args:
        networks: Networks with equal input and output channels.
        sigmoids: Whether each channel is a sigmoid; see `uses_sigmoids`.
    """

    def __init__(self, networks: Sequence[nn.Module], sigmoids: bool):
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.sigmoids = sigmoids

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return mean_logits([network(images) for network in self.networks], self.sigmoids)
