"""Tests of the schedules against torch's, and of weight decay."""

from __future__ import annotations

import pytest
import torch

from heartseg.training.optimizer import build_optimizer, learning_rate
from tests.examples import small_recipe

STEPS = 200


def rates(recipe):
    return [learning_rate(recipe, step, STEPS) for step in range(STEPS)]


def test_onecycle_follows_torch(params):
    recipe = small_recipe(params, schedule="onecycle", learning_rate=0.01, warmup_fraction=0.3)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=STEPS, pct_start=0.3)
    expected = []
    for _ in range(STEPS):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    # This schedule starts one step higher and reaches the peak one step later.
    assert rates(recipe) == pytest.approx(expected, abs=3e-4)
    assert max(rates(recipe)) == pytest.approx(0.01)
    assert rates(recipe)[-1] == pytest.approx(expected[-1])


def test_poly_has_the_power_of_the_paper(params):
    recipe = small_recipe(params, schedule="poly", learning_rate=1.0, warmup_fraction=0.0)
    assert rates(recipe)[100] == pytest.approx(0.5**0.9)


def test_cosine_falls_to_half_in_the_middle_and_warms_up_linearly(params):
    recipe = small_recipe(params, schedule="cosine", learning_rate=1.0, warmup_fraction=0.0)
    assert rates(recipe)[100] == pytest.approx(0.5)
    warm = small_recipe(params, schedule="cosine", learning_rate=1.0, warmup_fraction=0.1)
    assert rates(warm)[:20] == pytest.approx([(step + 1) / 21 for step in range(20)])


def test_biases_and_norms_are_not_decayed(params):
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    optimizer = build_optimizer(small_recipe(params, weight_decay=0.1), network)
    decay = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    assert [decay[id(p)] for p in network.parameters()] == [0.1, 0.0, 0.0, 0.0]
