"""How a network's output channels stand for labels."""

from __future__ import annotations

import torch

from heartseg.data.labels import LABELS
from heartseg.recipe import Recipe


def output_channels(recipe: Recipe) -> int:
    """Channels K of the logits: one per label, or a single one for two labels one-vs-rest."""
    labels = len(LABELS[recipe.dataset])
    return 1 if recipe.loss == "one_vs_rest_bce" and labels == 2 else labels


def predicted_labels(logits: torch.Tensor) -> torch.Tensor:
    """Label map uint8 (N, H, W) of logits (N, K, H, W).

    The largest logit wins, which is the largest sigmoid as well; a single channel stands for
    label 1 where its sigmoid exceeds one half.
    """
    if logits.shape[1] == 1:
        return (logits[:, 0] > 0).to(torch.uint8)
    return logits.argmax(1).to(torch.uint8)
