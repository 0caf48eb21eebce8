"""Optimizer and learning-rate schedule of a recipe."""

from __future__ import annotations

import math

import torch
from torch import nn

from heartseg.config.recipe import Recipe


def build_optimizer(recipe: Recipe, network: nn.Module) -> torch.optim.Optimizer:
    """AdamW or SGD; biases and normalisation weights are not decayed."""
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
    """Return the learning rate of a step (from 0) of all `steps` of a training.

    onecycle rises by a cosine from 1/25 of the recipe's rate, and falls by a cosine to 1/250,000
    of it at the last step (Smith and Topin 2018, arXiv:1708.07120; torch's defaults). cosine and
    poly (power 0.9, as in DeepLabV3, arXiv:1706.05587 section 4.1) rise linearly, and would reach
    0 one step after the last one, which therefore still trains.
    """
    if recipe.schedule == "constant":
        return recipe.learning_rate
    warmup = math.floor(recipe.warmup_fraction * steps)
    if step < warmup:
        risen = (step + 1) / (warmup + 1)
        factor = _cosine(0.04, 1.0, risen) if recipe.schedule == "onecycle" else risen
    else:
        left = steps - warmup
        if recipe.schedule == "onecycle":
            factor = _cosine(1.0, 4e-6, (step - warmup) / max(left - 1, 1))
        elif recipe.schedule == "poly":
            factor = (1 - (step - warmup) / left) ** 0.9
        else:
            factor = _cosine(1.0, 0.0, (step - warmup) / left)
    return recipe.learning_rate * factor


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2
