"""The bootstrap over patients: coverage, clustering, and scipy's own."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from heartseg.metrics.bootstrap import mean_interval


def test_equals_scipy_for_one_value_per_patient() -> None:
    values = np.random.default_rng(0).gamma(2.0, 3.0, 60)
    mean, low, high = mean_interval(values, range(60), samples=20000, seed=1, confidence=0.9)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20000, confidence_level=0.9, method="percentile", rng=2
    ).confidence_interval
    assert mean == pytest.approx(values.mean())
    assert low == pytest.approx(theirs.low, abs=0.03 * (high - low))
    assert high == pytest.approx(theirs.high, abs=0.03 * (high - low))


def test_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(40), 4)
    covered = 0
    for seed in range(400):
        values = np.repeat(rng.normal(5.0, 1.0, 40), 4) + rng.normal(0.0, 0.5, 160)
        _, low, high = mean_interval(values, patients, samples=400, seed=seed, confidence=0.95)
        covered += low <= 5.0 <= high
    assert 0.91 <= covered / 400 <= 0.98


def test_images_of_one_patient_count_as_one() -> None:
    values = np.repeat(np.random.default_rng(0).normal(size=50), 4)
    patients = np.repeat(np.arange(50), 4)
    settings = {"samples": 4000, "seed": 0, "confidence": 0.95}
    _, low, high = mean_interval(values, patients, **settings)
    _, image_low, image_high = mean_interval(values, np.arange(200), **settings)
    assert (high - low) / (image_high - image_low) == pytest.approx(2.0, rel=0.1)  # sqrt(4)


def test_patients_weigh_by_their_images() -> None:
    mean, low, high = mean_interval(
        [1.0, 1.0, 1.0, 5.0], ["a", "a", "a", "b"], samples=500, seed=0, confidence=0.95
    )
    assert (mean, low, high) == (2.0, 1.0, 5.0)


def test_same_seed_same_interval() -> None:
    values = np.random.default_rng(0).normal(size=30)
    first, again, other = (
        mean_interval(values, range(30), samples=200, seed=seed, confidence=0.95)
        for seed in (3, 3, 4)
    )
    assert first == again != other


def test_one_patient_has_no_width() -> None:
    assert mean_interval([1.0, 2.0], ["a", "a"], samples=100, seed=0, confidence=0.95) == (
        1.5,
        1.5,
        1.5,
    )


@pytest.mark.parametrize(
    ("values", "patients"), [([], []), ([1.0, np.nan], ["a", "b"]), ([1.0, 2.0], ["a"])]
)
def test_unusable_values_are_refused(values: list[float], patients: list[str]) -> None:
    with pytest.raises(ValueError, match=r"finite|patient per value"):
        mean_interval(values, patients, samples=100, seed=0, confidence=0.95)
