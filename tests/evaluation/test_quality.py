"""Rates of a quality model, compared with values by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from heartseg.config.params import Params
from heartseg.evaluation.quality import summarise_quality
from heartseg.metrics.quality import (
    BINS,
    area_under_roc,
    bad_scores,
    rates_from_counts,
    score_counts,
)


def counts(scores: list[float], labels: list[int]) -> torch.Tensor:
    logits = torch.logit(torch.tensor(scores, dtype=torch.float64))[:, None, None, None]
    masks = torch.tensor(labels, dtype=torch.uint8)[:, None, None].expand(-1, 3, 2)
    return score_counts(logits.expand(-1, 1, 3, 2), masks)


def test_rates_by_hand() -> None:
    scores, labels = [0.1, 0.2, 0.6, 0.3, 0.7, 0.9], [0, 0, 0, 1, 1, 1]
    found = rates_from_counts(counts(scores, labels))
    assert found["balanced_accuracy"] == pytest.approx(2 / 3)
    # of 9 pairs only (0.6 good, 0.3 bad) is the wrong way round
    assert found["auc"] == pytest.approx(8 / 9)
    assert area_under_roc(np.array(labels) > 0, np.array(scores)) == pytest.approx(8 / 9)
    tied = rates_from_counts(counts([0.4, 0.4, 0.4], [0, 1, 1]))
    assert tied == {"auc": pytest.approx(0.5), "balanced_accuracy": pytest.approx(0.5)}
    assert np.isnan(rates_from_counts(counts([0.4, 0.5], [1, 1]))["auc"])


def test_counts_add_up_to_the_exact_area() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    scores = (rng.integers(0, BINS, 300) + 0.5) / BINS  # one value per bin, so nothing is lost
    parts = [counts(scores[k::3].tolist(), labels[k::3].tolist()) for k in range(3)]
    exact = area_under_roc(labels > 0, scores)
    assert rates_from_counts(torch.stack(parts).sum(0))["auc"] == pytest.approx(exact)


def test_scores_of_one_and_of_two_channels() -> None:
    logits = torch.tensor([0.3, -1.2])[:, None, None, None].expand(-1, 1, 4, 4)
    both = torch.cat([torch.zeros_like(logits), logits], 1)
    assert torch.allclose(bad_scores(logits), torch.tensor([0.3, -1.2]).sigmoid())
    assert torch.allclose(bad_scores(both), bad_scores(logits))


def test_a_summary_by_hand(params: Params) -> None:
    windows = pd.DataFrame(
        {
            "patient": ["a", "a", "b", "b", "c", "c", "c"],
            "quality": ["good", "bad", "good", "bad", "good", "bad", "bad"],
            "score": [0.1, 0.8, 0.9, 0.95, 0.2, 0.4, 0.7],
        }
    )
    found = summarise_quality(windows, params.evaluate)
    assert found["confusion"] == {
        "bad_called_bad": 3,
        "bad_called_good": 1,
        "good_called_good": 2,
        "good_called_bad": 1,
    }
    assert (found["n_cases"], found["n_patients"], found["n_bad"]) == (7, 3, 4)
    assert found["sensitivity"] == pytest.approx(0.75)
    assert found["specificity"] == pytest.approx(2 / 3)
    assert found["balanced_accuracy"] == pytest.approx((0.75 + 2 / 3) / 2)
    assert found["auc"] == pytest.approx(9 / 12)
    assert np.isnan(found["auc_low"])  # three animals allow no interval
    twice = pd.concat([windows, windows.assign(patient=windows["patient"] + "'")])
    six = summarise_quality(twice, params.evaluate)
    # in animals a and c every bad window is above every good one: they alone give an area of 1
    assert six["auc_low"] < six["auc"] < six["auc_high"] == 1.0
    only_good = summarise_quality(windows[windows["quality"] == "good"], params.evaluate)
    assert only_good["sensitivity"] is None
    assert np.isnan(only_good["auc"])
