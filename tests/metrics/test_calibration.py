"""Tests of the calibration error against values by hand and scikit-learn's curve."""

from __future__ import annotations

import numpy as np
import pytest

from heartseg.metrics.calibration import BINS, Calibration, Reliability, heart_box


def test_calibration_error() -> None:
    found = Reliability()
    found.add(np.array([0.9] * 10), np.arange(10) < 6)  # probability 0.9, frequency 0.6
    found.add(np.array([0.3] * 30), np.arange(30) < 9)  # probability 0.3, frequency 0.3
    assert found.ece() == pytest.approx((10 * 0.3 + 30 * 0.0) / 40)
    assert np.isnan(Reliability().ece())


def test_probability_1_is_in_the_last_bin() -> None:
    found = Reliability()
    found.add(np.array([1.0, 0.0]), np.array([True, False]))
    assert (found.counts[-1], found.counts[0], found.ece()) == (1, 1, 0.0)


def test_curve_equals_scikit_learn() -> None:
    calibration_curve = pytest.importorskip("sklearn.calibration").calibration_curve
    rng = np.random.default_rng(0)
    probability = rng.random(5000)
    is_true = rng.random(5000) < probability**2
    found = Reliability()
    found.add(probability, is_true)
    true, mean = calibration_curve(is_true, probability, n_bins=BINS)
    np.testing.assert_allclose(found.true_counts / found.counts, true)
    np.testing.assert_allclose(found.probability_sums / found.counts, mean)
    assert found.ece() == pytest.approx(np.average(np.abs(true - mean), weights=found.counts))


def one_hot(labels: np.ndarray, sure: float) -> np.ndarray:
    """Return probabilities (4, H, W): `sure` for the label, equal ones for the other labels."""
    found = np.full((4, *labels.shape), (1 - sure) / 3, np.float32)
    np.put_along_axis(found, labels[None].astype(int), sure, 0)
    return found


def test_far_background_does_not_count() -> None:
    labels = np.zeros((60, 50), np.uint8)
    labels[20:40, 10:30] = 1
    found = Calibration("camus")
    found.add(one_hot(labels, 0.7), labels)  # always right, with probability 0.7
    summary = found.summary()
    assert summary["n"] == 24 * 24  # the box and 2 pixels on each side
    assert summary["ece"] == pytest.approx(0.3, abs=1e-6)
    # Myocardium: probability 0.1, frequency 0; LV with myocardium: 0.8 inside, 0.2 outside.
    assert summary["ece_MYO"] == pytest.approx(0.1, abs=1e-6)
    assert summary["ece_LVepi"] == pytest.approx(0.2, abs=1e-6)


def test_joined_counts_equal_those_of_all_images() -> None:
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 4, (12, 9)).astype(np.uint8) for _ in range(4)]
    parts = [Calibration("camus") for _ in range(2)]
    whole = Calibration("camus")
    for number, labels in enumerate(images):
        probabilities = rng.dirichlet(np.ones(4), (12, 9)).transpose(2, 0, 1).astype(np.float32)
        parts[number % 2].add(probabilities, labels)
        whole.add(probabilities, labels)
    parts[0].join(parts[1])
    assert parts[0].summary() == pytest.approx(whole.summary())


def test_an_image_without_any_heart_adds_nothing() -> None:
    found = Calibration("mmode")
    nothing = np.zeros((5, 5), np.uint8)
    found.add(one_hot(nothing, 0.9)[:2], nothing)
    assert found.summary()["n"] == 0
    assert heart_box(np.zeros((3, 3), bool)) is None
    edge = np.zeros((30, 30), bool)
    edge[:20, 25:] = True
    rows, columns = heart_box(edge) or (slice(0), slice(0))
    assert (rows.start, rows.stop, columns.start) == (0, 22, 25 - round(0.5))
