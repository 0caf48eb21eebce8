"""Tests of labels, probabilities and ensembles of networks with softmax and with sigmoids."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from heartseg.models.outputs import Ensemble, mean_logits, predicted_labels, probabilities

CASES = [(4, False), (4, True), (2, False), (1, True)]


@pytest.mark.parametrize(("channels", "sigmoids"), CASES)
def test_the_label_has_the_largest_probability(channels: int, sigmoids: bool) -> None:
    logits = 3 * torch.randn(2, channels, 9, 7)
    found = probabilities(logits, sigmoids)
    assert found.shape == (2, max(channels, 2), 9, 7)
    torch.testing.assert_close(found.sum(1), torch.ones(2, 9, 7))
    assert torch.equal(found.argmax(1).to(torch.uint8), predicted_labels(logits))


def test_probabilities_by_hand() -> None:
    logits = torch.tensor([0.0, 1.0])[None, :, None, None]
    sigmoid = [0.5, 0.7310586]
    softmax = probabilities(logits, False).flatten().tolist()
    assert softmax == pytest.approx([0.2689414, 0.7310586])
    each = probabilities(logits, True).flatten().tolist()
    assert each == pytest.approx([value / sum(sigmoid) for value in sigmoid])
    single = probabilities(logits[:, 1:], True).flatten().tolist()
    assert single == pytest.approx([0.2689414, 0.7310586])


@pytest.mark.parametrize(("channels", "sigmoids"), CASES)
def test_mean_logits_have_the_mean_probabilities(channels: int, sigmoids: bool) -> None:
    parts = [2 * torch.randn(1, channels, 5, 6) for _ in range(3)]
    found = mean_logits(parts, sigmoids)
    if sigmoids or channels == 1:
        expected = torch.stack([part.sigmoid() for part in parts]).mean(0)
        torch.testing.assert_close(found.sigmoid(), expected)
    else:
        expected = torch.stack([part.softmax(1) for part in parts]).mean(0)
        torch.testing.assert_close(found.softmax(1), expected)


def test_confident_networks_that_disagree_give_finite_logits() -> None:
    parts = [torch.tensor([200.0, -200.0])[None, :, None, None]]
    parts.append(-parts[0])
    for sigmoids in (False, True):
        assert probabilities(mean_logits(parts, sigmoids), sigmoids).flatten().tolist() == [0.5] * 2


def test_a_confident_member_outweighs_two_uncertain_ones() -> None:
    """An ensemble averages probabilities instead of taking a majority vote."""

    class Constant(nn.Module):
        def __init__(self, logit: float) -> None:
            super().__init__()
            self.logit = logit

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.cat((torch.zeros_like(images), images * 0 + self.logit), 1)

    ensemble = Ensemble([Constant(6.0), Constant(-0.1), Constant(-0.1)], False)
    assert predicted_labels(ensemble(torch.zeros(1, 1, 4, 4))).all()
