"""Tests of the network that classifies whole windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from heartseg.config.recipe import WindowCNNConfig
from heartseg.models import build_network
from heartseg.models.inference import PackagedModel, export_model
from heartseg.models.sliding_window import bad_columns

CONFIG = WindowCNNConfig(name="window_cnn", in_channels=1, filters=[4, 8], dropout=0.0)


@pytest.mark.parametrize("size", [(32, 32), (37, 50)])
def test_every_pixel_has_the_logits_of_the_window(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = build_network(CONFIG, 2).eval()
    images = torch.randn(3, 1, *size)
    logits = network(images)
    assert logits.shape == (3, 2, *size)
    assert torch.equal(logits, logits[:, :, :1, :1].expand_as(logits))
    assert len(logits[:, 0, 0, 0].unique()) == 3
    assert sum(p.numel() for p in network.parameters()) == 4 * 9 + 8 + 4 * 8 * 9 + 16 + 8 * 2 + 2


@pytest.mark.slow
def test_the_packaged_model_labels_whole_windows() -> None:
    torch.manual_seed(1)
    network = build_network(CONFIG, 1).eval()
    images = torch.randint(0, 256, (5, 1, 61, 83), dtype=torch.uint8)
    images[:2] //= 8
    with torch.no_grad():
        model = PackagedModel(network, 32)
        network.decision.bias -= model.logits(images)[:, 0, 0, 0].median()
        expected = (model.logits(images)[:, 0, 0, 0] > 0).to(torch.uint8)
        labels = export_model(model, 1).module()(images)
    assert 0 < expected.sum() < 5
    assert torch.equal(labels, expected[:, None, None].expand(5, 61, 83))


def test_windows_vote_on_the_columns_of_a_strip() -> None:
    def classify(windows: np.ndarray) -> np.ndarray:
        """Label a window bad if most of its columns are black."""
        bad = (windows[:, 0].max(axis=1) == 0).mean(axis=1) > 0.5
        return np.broadcast_to(bad[:, None, None], windows[:, 0].shape).astype(np.uint8)

    image = np.full((16, 600), 90, np.uint8)
    image[:, 200:400] = 0
    found = np.flatnonzero(bad_columns(classify, image, 60, 0.75))
    assert found.tolist() == list(range(found[0], found[-1] + 1))
    assert found[0] == pytest.approx(200, abs=15)
    assert found[-1] == pytest.approx(399, abs=15)
    image[:, 220:] = 90  # a gap of a third of a window
    assert not bad_columns(classify, image, 60, 0.75).any()
