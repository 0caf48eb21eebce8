"""Tests of `fit` on the classification of windows."""

from __future__ import annotations

import copy

import torch

from heartseg.config.params import Params
from heartseg.config.recipe import Recipe
from heartseg.data.resident import Resident
from heartseg.training.loop import Epoch, fit


def windows(count: int, seed: int) -> Resident:
    """Return windows: bad ones are noise, good ones have a bright line."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 120, (count, 1, 32, 32), generator=generator, dtype=torch.uint8)
    bad = torch.arange(count) % 2
    images[bad == 0, :, 10:14] = 230
    masks = bad.to(torch.uint8)[:, None, None].expand(-1, 32, 32).contiguous()
    return Resident(images, masks, [f"w{i}" for i in range(count)])


def test_it_learns_and_resumes_bit_for_bit(params: Params) -> None:
    model = {"name": "window_cnn", "in_channels": 1, "filters": [4, 8], "dropout": 0.2}
    changes = {"model": model, "input_size": 32, "batch_size": 8, "epochs": 6}
    recipe = Recipe.model_validate(params.recipe("mmode-quality").model_dump() | changes)
    epochs: list[Epoch] = []

    def keep(epoch: Epoch) -> None:
        epochs.append(copy.deepcopy(Epoch(epoch.number, epoch.metrics, epoch.state, False, None)))  # type: ignore[arg-type]

    train, val = windows(48, 1), windows(15, 2)
    fit(recipe, train, val, report=keep, clinical=True)
    assert epochs[-1].metrics["auc"] == 1.0
    assert epochs[-1].metrics["balanced_accuracy"] == 1.0
    assert epochs[-1].metrics["dice_bad"] == 1.0
    assert "lvid_mae" not in epochs[-1].metrics
    resumed: list[Epoch] = []
    whole, epochs = epochs, resumed
    fit(recipe, train, val, report=keep, resume_from=whole[2].state)
    assert [epoch.number for epoch in resumed] == [4, 5, 6]
    assert whole[-1].state is not None
    assert resumed[-1].state is not None
    for key, value in whole[-1].state["model"].items():
        assert torch.equal(value, resumed[-1].state["model"][key])
