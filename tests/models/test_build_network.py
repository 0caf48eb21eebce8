"""Tests that every network must pass."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from heartseg.models import build_network
from heartseg.models.padding import pad_to_multiple


@pytest.mark.parametrize("size", [(96, 96), (100, 130)])
def test_logits_have_the_size_of_the_images(any_config, size):
    network = build_network(any_config, 3)
    assert network(torch.randn(2, 1, *size)).shape == (2, 3, *size)


def test_input_channels(any_config):
    config = any_config.model_copy(update={"in_channels": 2})
    assert build_network(config, 1)(torch.randn(2, 2, 64, 64)).shape == (2, 1, 64, 64)


def test_every_parameter_gets_a_gradient(any_config):
    network = build_network(any_config, 3)
    images, labels = torch.randn(2, 1, 96, 96), torch.randint(0, 3, (2, 96, 96))
    F.cross_entropy(network(images), labels).backward()
    without = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or (parameter.ndim > 1 and not parameter.grad.any())
    ]
    assert without == []


def test_evaluation_depends_only_on_the_image(any_config):
    network = build_network(any_config, 3)
    network(torch.randn(4, 1, 96, 96))  # running statistics other than the initial ones
    network.eval()
    images = torch.randn(3, 1, 96, 96)
    with torch.no_grad():
        together = network(images)
        assert torch.equal(together, network(images))
        torch.testing.assert_close(network(images[1:2])[0], together[1], rtol=1e-4, atol=1e-5)


def test_trains_with_one_image(any_config):
    network = build_network(any_config, 3)
    network(torch.randn(1, 1, 64, 64)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_trains_in_bfloat16(any_config):
    network = build_network(any_config, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(torch.randn(2, 1, 64, 64))
        loss = F.cross_entropy(logits, torch.randint(0, 3, (2, 64, 64)))
    loss.backward()
    assert logits.dtype == torch.bfloat16
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_padding_repeats_the_border():
    images = torch.arange(6.0).reshape(1, 1, 2, 3)
    expected = torch.tensor([[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5.0]])
    assert torch.equal(pad_to_multiple(images, 4)[0, 0], expected)
    assert pad_to_multiple(images[..., :2], 2).shape == (1, 1, 2, 2)
