"""Tests of the entropy and the uncertainty of a case on known probabilities."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from heartseg.evaluation.summary import uncertainty_and_dice
from heartseg.metrics.uncertainty import case_uncertainty, normalised_entropy, summarise_uncertainty


def pixels(*probabilities: list[float]) -> np.ndarray:
    """Return probabilities (K, 1, n)."""
    return np.array(probabilities, np.float32).T[:, None]


def test_entropy_of_known_probabilities() -> None:
    found = normalised_entropy(pixels([1, 0, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0], [0.9, 0.1, 0, 0]))
    expected = [0.0, 1.0, 0.5, stats.entropy([0.9, 0.1], base=4)]
    assert found.dtype == np.float32
    assert found[0] == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match="2 classes"):
        normalised_entropy(np.ones((1, 2, 2)))


def test_uncertainty_does_not_depend_on_margin_and_resolution() -> None:
    entropy, labels = np.zeros((20, 20), np.float32), np.zeros((20, 20), np.uint8)
    labels[5:15, 5:15] = 2
    entropy[5:15, 4] = entropy[5:15, 5] = 0.5
    assert case_uncertainty(entropy, labels) == pytest.approx(0.05)
    wide = [np.pad(values, 30) for values in (entropy, labels)]
    assert case_uncertainty(*wide) == pytest.approx(0.05)
    fine = [np.kron(values, np.ones((3, 3), values.dtype)) for values in (entropy, labels)]
    assert case_uncertainty(*fine) == pytest.approx(0.05)


def test_no_heart_is_the_most_uncertain_case() -> None:
    nothing = np.zeros((4, 4), np.uint8)
    assert case_uncertainty(np.zeros((4, 4), np.float32), nothing) == 1.0
    assert case_uncertainty(np.full((4, 4), 0.1, np.float32), nothing) == 1.0


def test_rank_correlation_equals_scipy() -> None:
    rng = np.random.default_rng(0)
    pairs = pd.DataFrame({"uncertainty": rng.random(30).round(1), "dice": rng.random(30).round(1)})
    found = summarise_uncertainty(pairs)
    expected = stats.spearmanr(pairs["uncertainty"], pairs["dice"]).statistic
    assert found["spearman_dice"] == pytest.approx(expected)
    assert found["n"] == 30
    alike = pd.DataFrame({"uncertainty": [0.1, 0.2], "dice": [0.9, 0.9]})
    assert np.isnan(summarise_uncertainty(alike)["spearman_dice"])


def test_a_case_counts_once_with_the_mean_dice_of_its_structures() -> None:
    rows = [("a", "LV", 0.9), ("a", "MYO", 0.6), ("a", "LVepi", 0.0), ("a", "LA", 0.9)]
    cases = pd.DataFrame(rows, columns=["case_id", "structure", "dice"]).assign(uncertainty=0.2)
    pairs = uncertainty_and_dice(cases, "camus")
    assert pairs.to_numpy().tolist() == [[0.2, pytest.approx(0.8)]]
