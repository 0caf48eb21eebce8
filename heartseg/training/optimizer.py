"""Optimizer and learning-rate schedule of a recipe."""

from __future__ import annotations

import math

import torch
from torch import nn

from heartseg.config.recipe import Recipe


def build_optimizer(recipe: Recipe, network: nn.Module) -> torch.optim.Optimizer:
    """Build AdamW or SGD. Biases and normalisation weights are not decayed."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Return the learning rate of a step.

    onecycle rises by a cosine from 1/25 of the recipe's rate and falls by a cosine to 1/250,000
    of it at the last step (Smith and Topin 2018, arXiv:1708.07120; torch's defaults). cosine and
    poly (power 0.9, as in DeepLabV3, arXiv:1706.05587 section 4.1) rise linearly and would reach 0
    one step after the last one, so that the last step still trains.

    Args:
        recipe: Recipe with learning_rate, schedule and warmup_fraction.
        step: Step of the training, from 0.
        steps: Number of steps of the whole training.
    """
    if recipe.schedule == "constant":
        return recipe.learning_rate
    warmup = math.floor(recipe.warmup_fraction * steps)
    if step < warmup:
        progress = (step + 1) / (warmup + 1)
        factor = _cosine(0.04, 1.0, progress) if recipe.schedule == "onecycle" else progress
    else:
        remaining = steps - warmup
        if recipe.schedule == "onecycle":
            factor = _cosine(1.0, 4e-6, (step - warmup) / max(remaining - 1, 1))
        elif recipe.schedule == "poly":
            factor = (1 - (step - warmup) / remaining) ** 0.9
        else:
            factor = _cosine(1.0, 0.0, (step - warmup) / remaining)
    return recipe.learning_rate * factor


def _cosine(start: float, end: float, progress: float) -> float:
    """Interpolate by a half cosine; `progress` is 0 at the start and 1 at the end."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
