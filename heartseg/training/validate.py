"""Validation of a network in the midst of its training, over all workers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import distributed, nn

from heartseg.config.recipe import Recipe
from heartseg.data.resident import Resident
from heartseg.datasets import DATASETS
from heartseg.metrics.overlap import confusion_counts, dice_from_counts
from heartseg.metrics.quality import BINS, rates_from_counts, score_counts
from heartseg.metrics.validation import ClinicalValidation
from heartseg.models.inference import normalise
from heartseg.models.outputs import predicted_labels
from heartseg.training.losses import Loss


@torch.no_grad()
def validate(
    network: nn.Module,
    recipe: Recipe,
    val: Resident,
    loss: Loss,
    labels: int,
    device: torch.device,
    rank: int,
    world_size: int,
    clinical: ClinicalValidation | None = None,
) -> dict[str, float]:
    """Loss, per-structure Dice, clinical errors or rates of right decisions, over all ranks.

    All of it is at the network's resolution.

    Shards are strided and never padded, counts are summed over ranks and then divided: the
    result does not depend on the number of workers.
    """
    network.eval()
    found: list[torch.Tensor] = []
    mine = torch.arange(len(val))[rank::world_size]
    sums = torch.zeros(2 + 3 * labels, dtype=torch.float64, device=device)
    scored = torch.zeros(2 * BINS, dtype=torch.float64, device=device)
    spec = DATASETS[recipe.dataset]
    for chosen in mine.split(recipe.eval_batch_size) if len(mine) else ():
        images, masks = val.batch(chosen, device)
        with autocast(recipe, device):
            logits = network(as_input(images, recipe))
        predicted = predicted_labels(logits)
        counts = confusion_counts(predicted, masks, labels).sum(0)
        if clinical is not None:
            found.append(predicted.to("cpu", torch.uint8))
        sums[0] += loss(logits, masks) * len(chosen)
        sums[1] += len(chosen)
        sums[2:] += counts.flatten()
        if spec.classifies:
            scored += score_counts(logits, masks).flatten()
    if world_size > 1:
        distributed.all_reduce(sums)
        distributed.all_reduce(scored)
    dice = dice_from_counts(sums[2:].reshape(labels, 3).long()).tolist()
    named = dict(zip(spec.dice_metrics, dice[1:], strict=True))
    metrics = {  # the first one is what MLflow's page for comparing runs shows
        "dice_mean": sum(named.values()) / len(named),
        **named,
        "val_loss": (sums[0] / sums[1]).item(),
    }
    if spec.classifies:
        metrics |= rates_from_counts(scored.reshape(2, BINS))
    if clinical is not None:
        metrics |= clinical.errors(_gather(found, val.masks.shape, world_size))
    return metrics


def _gather(found: list[torch.Tensor], shape: torch.Size, world_size: int) -> np.ndarray:
    """All ranks' label maps uint8 (N, S, S) in the order of the images, on every rank."""
    own = torch.cat(found).numpy() if found else np.empty((0, *shape[1:]), np.uint8)
    parts: list[Any] = [None] * world_size
    if world_size > 1:
        distributed.all_gather_object(parts, own)
    else:
        parts = [own]
    maps = np.empty(tuple(shape), np.uint8)
    for other, part in enumerate(parts):
        maps[other::world_size] = part
    return maps


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """bf16 where the recipe asks for it, or by itself on a GPU."""
    on = recipe.precision == "bf16" or (recipe.precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=on)


def as_input(images: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    channels = normalise(images).expand(-1, recipe.model.in_channels, -1, -1)
    return channels.contiguous(memory_format=layout)


@torch.no_grad()
def predict_labels(
    network: nn.Module, recipe: Recipe, images: torch.Tensor, device: torch.device
) -> torch.Tensor:
    network.eval()
    with autocast(recipe, device):
        return predicted_labels(network(as_input(images, recipe)))
