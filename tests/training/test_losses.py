"""Tests of the losses against values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from heartseg.training.losses import build_loss, training_loss
from tests.examples import small_recipe


def test_one_vs_rest_of_zero_logits_is_ln_2(params):
    loss = build_loss(small_recipe(params, loss="one_vs_rest_bce"))
    labels = torch.randint(0, 4, (2, 8, 8), dtype=torch.uint8)
    assert loss(torch.zeros(2, 4, 8, 8), labels).item() == pytest.approx(math.log(2))


def test_one_vs_rest_has_one_target_per_label(params):
    """A logit of +20 for the right label and -20 for the others adds 0; a wrong one adds 20."""
    loss = build_loss(small_recipe(params, loss="one_vs_rest_bce"))
    labels = torch.tensor([[[0, 1], [2, 3]]], dtype=torch.uint8)
    logits = torch.full((1, 4, 2, 2), -20.0)
    for label, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        logits[0, label, row, column] = 20.0
    assert loss(logits, labels).item() == pytest.approx(0.0, abs=1e-6)
    logits[0, 0, 0, 0] = -20.0  # one of 16 targets missed by 20
    assert loss(logits, labels).item() == pytest.approx(20 / 16, rel=1e-5)


def test_single_channel_counts_every_label_but_background(params):
    loss = build_loss(small_recipe(params, loss="one_vs_rest_bce"))
    labels = torch.tensor([[[0, 1]]], dtype=torch.uint8)
    good = torch.tensor([[[[-20.0, 20.0]]]])
    assert loss(good, labels).item() == pytest.approx(0.0, abs=1e-6)
    assert loss(-good, labels).item() == pytest.approx(20.0, rel=1e-5)


def test_cross_entropy_and_dice_of_zero_logits(params):
    """Uniform probabilities of 1/4 on an image of 16 pixels, four of each label: cross-entropy
    ln 4; soft Dice of each label 2 * (4/4) / (16/4 + 4) = 1/4, so its loss 3/4."""
    loss = build_loss(small_recipe(params, loss="ce_dice"))
    labels = torch.arange(4, dtype=torch.uint8).repeat(4).reshape(1, 4, 4)
    assert loss(torch.zeros(1, 4, 4, 4), labels).item() == pytest.approx(
        math.log(4) + 0.75, rel=1e-4
    )


@pytest.mark.parametrize("kind", ["ce_dice", "one_vs_rest_bce"])
@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 2.0, 3.0]])
def test_mean_over_equal_shares_is_the_loss_of_the_whole_batch(params, kind, weights):
    loss = build_loss(small_recipe(params, loss=kind, class_weights=weights))
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 4, 16, 16), torch.randint(0, 4, (4, 16, 16))
    shares = [loss(logits[part], labels[part]) for part in (slice(0, 2), slice(2, 4))]
    assert torch.stack(shares).mean().item() == pytest.approx(loss(logits, labels).item(), rel=1e-5)


def test_class_weight_multiplies_the_loss_of_its_pixels(params):
    labels = torch.full((1, 8, 8), 2, dtype=torch.uint8)
    logits = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    plain = small_recipe(params, loss="one_vs_rest_bce", class_weights=[1.0, 1.0, 1.0, 1.0])
    double = small_recipe(params, loss="one_vs_rest_bce", class_weights=[2.0, 2.0, 2.0, 2.0])
    ratio = build_loss(double)(logits, labels) / build_loss(plain)(logits, labels)
    assert ratio.item() == pytest.approx(2.0, rel=1e-5)


def test_auxiliary_loss_has_half_the_weight(params):
    loss = build_loss(small_recipe(params, loss="one_vs_rest_bce"))
    labels = torch.zeros(1, 4, 4, dtype=torch.uint8)
    logits = torch.zeros(1, 4, 4, 4)
    both = training_loss((logits, logits), labels, loss).item()
    assert both == pytest.approx(1.5 * training_loss(logits, labels, loss).item())
