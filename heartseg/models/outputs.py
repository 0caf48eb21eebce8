"""How a network's output channels stand for labels and probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from heartseg.config.recipe import Recipe
from heartseg.datasets import DATASETS


def output_channels(recipe: Recipe) -> int:
    """Channels K of the logits: one per label, or a single one for two labels one-vs-rest."""
    labels = len(DATASETS[recipe.dataset].labels)
    return 1 if one_vs_rest(recipe) and labels == 2 else labels


def one_vs_rest(recipe: Recipe) -> bool:
    """Whether each channel is a decision of its own (a sigmoid), or all are one (softmax)."""
    return recipe.loss == "one_vs_rest_bce"


def predicted_labels(logits: torch.Tensor) -> torch.Tensor:
    """Label map uint8 (N, H, W) of logits (N, K, H, W).

    The largest logit wins, which is the largest sigmoid as well; a single channel stands for
    label 1 where its sigmoid exceeds one half.
    """
    if logits.shape[1] == 1:
        return (logits[:, 0] > 0).to(torch.uint8)
    return logits.argmax(1).to(torch.uint8)


def probabilities(logits: torch.Tensor, sigmoids: bool) -> torch.Tensor:
    """Class probabilities float32 (N, labels, H, W), sum 1, of logits (N, K, H, W).

    Args:
        logits: a single channel stands for label 1 of two.
        sigmoids: see `one_vs_rest`; the sigmoids of several labels are divided by their sum.
    """
    if logits.shape[1] == 1:
        return torch.cat((-logits, logits), 1).float().sigmoid()
    if sigmoids:
        each = logits.float().sigmoid()
        return each / each.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return logits.float().softmax(1)


def mean_logits(parts: Sequence[torch.Tensor], sigmoids: bool) -> torch.Tensor:
    """Logits whose probabilities are the mean of those of several logits (N, K, H, W).

    Mean probabilities are what an ensemble of networks predicts (Lakshminarayanan et al., NeurIPS
    2017, section 2.4). A single part is returned as it is.
    """
    if len(parts) == 1:
        return parts[0]
    if sigmoids or parts[0].shape[1] == 1:
        mean = torch.stack([part.sigmoid() for part in parts]).mean(0)
        return torch.logit(mean, eps=1e-7)
    mean = torch.stack([part.softmax(1) for part in parts]).mean(0)
    return mean.clamp(min=torch.finfo(mean.dtype).tiny).log()


class Ensemble(nn.Module):
    """Several networks as one: the logits of their mean probabilities.

    Args:
        networks: of equal inputs and outputs.
        sigmoids: see `one_vs_rest`.
    """

    def __init__(self, networks: Sequence[nn.Module], sigmoids: bool):
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.sigmoids = sigmoids

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return mean_logits([network(images) for network in self.networks], self.sigmoids)
