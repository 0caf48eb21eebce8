"""Tests of QuickNAT against the published network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from heartseg.models import build_network
from heartseg.models.quicknat import DenseBlock, SqueezeExcite


@pytest.mark.parametrize(("classes", "parameters"), [(1, 3_515_216), (4, 3_515_411)])
def test_number_of_parameters_equals_the_published_network(configure, classes, parameters):
    config = configure("quicknat", filters=64, squeeze_excite="none", dropout=0.0)
    network = build_network(config, classes)
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_dense_block_concatenates_all_previous_outputs():
    block = DenseBlock(1, 1, 3).eval()
    for convolution in block.convolutions:  # each sums its input channels at the pixel
        nn.init.dirac_(convolution.weight)
        middle = convolution.kernel_size[0] // 2
        convolution.weight.data[:, :, middle, middle] = 1.0
        nn.init.zeros_(convolution.bias)
    x = torch.rand(1, 1, 4, 4)
    # first x, then x + x = 2x, then x + x + 2x = 4x; BatchNorm's gain is 1 / sqrt(1 + eps)
    torch.testing.assert_close(block(x), 4 * x, rtol=1e-4, atol=0)


def test_squeeze_and_excitation_by_hand():
    layer = SqueezeExcite(2, "both")
    with torch.no_grad():
        _, reduce, _, expand, _ = layer.channel
        reduce.weight.copy_(torch.tensor([[1.0, 1.0]])[..., None, None])
        reduce.bias.zero_()
        expand.weight.copy_(torch.tensor([[1.0], [-1.0]])[..., None, None])
        expand.bias.zero_()
        layer.spatial[0].weight.copy_(torch.tensor([[1.0, -1.0]])[..., None, None])
        layer.spatial[0].bias.zero_()
    x = torch.tensor([[1.0, 3.0], [2.0, 4.0]]).reshape(1, 2, 1, 2)  # channel means 2 and 3
    by_channel = x * torch.sigmoid(torch.tensor([5.0, -5.0]))[None, :, None, None]
    by_pixel = x * torch.sigmoid(torch.tensor([-1.0, -1.0]))  # channel 0 minus channel 1
    torch.testing.assert_close(layer(x), torch.maximum(by_channel, by_pixel))


@pytest.mark.parametrize(
    ("kind", "more"), [("channel", 8 * 22), ("spatial", 8 * 5), ("both", 8 * 27)]
)
def test_squeeze_and_excitation_follows_each_encoder_and_decoder(configure, kind, more):
    def count(squeeze_excite: str) -> int:
        network = build_network(configure("quicknat", filters=4, squeeze_excite=squeeze_excite), 1)
        return sum(p.numel() for p in network.parameters())

    # with 4 filters: channel (4 * 2 + 2) + (2 * 4 + 4), spatial 4 + 1
    assert count(kind) - count("none") == more


def test_dropout_is_random_in_training_only(configure):
    network = build_network(configure("quicknat", dropout=0.5), 1)
    x = torch.randn(2, 1, 32, 32)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))
