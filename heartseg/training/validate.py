"""Validation of a network during its training, distributed over all workers."""

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
    """Compute the validation metrics at the resolution of the network.

    Each rank validates every `world_size`-th image. Counts are summed over ranks before they are
    divided, so that the result does not depend on the number of workers.

    Args:
        network: Network to validate. It is left in evaluation mode.
        recipe: Recipe of the training.
        val: Validation images.
        loss: Function of `build_loss`.
        labels: Number of labels, including the background.
        device: Device of the network.
        rank: Index of this worker.
        world_size: Number of workers.
        clinical: Measures clinical errors, if given.

    Returns:
        dice_mean, the Dice of each label, val_loss and, depending on the dataset, clinical errors
        or classification rates; equal on all ranks.
    """
    network.eval()
    predictions: list[torch.Tensor] = []
    shard = torch.arange(len(val))[rank::world_size]
    sums = torch.zeros(2 + 3 * labels, dtype=torch.float64, device=device)
    histograms = torch.zeros(2 * BINS, dtype=torch.float64, device=device)
    spec = DATASETS[recipe.dataset]
    for chosen in shard.split(recipe.eval_batch_size) if len(shard) else ():
        images, masks = val.batch(chosen, device)
        with autocast(recipe, device):
            logits = network(as_input(images, recipe))
        predicted = predicted_labels(logits)
        counts = confusion_counts(predicted, masks, labels).sum(0)
        if clinical is not None:
            predictions.append(predicted.to("cpu", torch.uint8))
        sums[0] += loss(logits, masks) * len(chosen)
        sums[1] += len(chosen)
        sums[2:] += counts.flatten()
        if spec.classifies:
            histograms += score_counts(logits, masks).flatten()
    if world_size > 1:
        distributed.all_reduce(sums)
        distributed.all_reduce(histograms)
    dice = dice_from_counts(sums[2:].reshape(labels, 3).long()).tolist()
    named = dict(zip(spec.dice_metrics, dice[1:], strict=True))
    metrics = {  # MLflow's page for comparing runs shows the first one
        "dice_mean": sum(named.values()) / len(named),
        **named,
        "val_loss": (sums[0] / sums[1]).item(),
    }
    if spec.classifies:
        metrics |= rates_from_counts(histograms.reshape(2, BINS))
    if clinical is not None:
        metrics |= clinical.errors(_gather(predictions, val.masks.shape, world_size))
    return metrics


def _gather(predictions: list[torch.Tensor], shape: torch.Size, world_size: int) -> np.ndarray:
    """Gather the label maps of all ranks in the order of the images.

    Args:
        predictions: Label maps uint8 (n, S, S) of this rank's batches.
        shape: Shape (N, S, S) of the result.
        world_size: Number of workers.

    Returns:
        Label maps uint8 (N, S, S), on every rank.
    """
    own = torch.cat(predictions).numpy() if predictions else np.empty((0, *shape[1:]), np.uint8)
    parts: list[Any] = [None] * world_size
    if world_size > 1:
        distributed.all_gather_object(parts, own)
    else:
        parts = [own]
    maps = np.empty(tuple(shape), np.uint8)
    for rank, part in enumerate(parts):
        maps[rank::world_size] = part
    return maps


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """Return the autocast context of a recipe: bf16 if it is configured, or by default on a GPU."""
    enabled = recipe.precision == "bf16" or (recipe.precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def as_input(images: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Convert grey values (N, C, S, S) to the network's input float32 (N, in_channels, S, S)."""
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    channels = normalise(images).expand(-1, recipe.model.in_channels, -1, -1)
    return channels.contiguous(memory_format=layout)


@torch.no_grad()
def predict_labels(
    network: nn.Module, recipe: Recipe, images: torch.Tensor, device: torch.device
) -> torch.Tensor:
    """Predict label maps uint8 (N, S, S) of images uint8 (N, C, S, S) on the same device."""
    network.eval()
    with autocast(recipe, device):
        return predicted_labels(network(as_input(images, recipe)))
