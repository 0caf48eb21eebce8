"""Tests of the bootstrap over patients: coverage, clustering, and comparison with scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from heartseg.metrics.bootstrap import mean_interval


def test_equals_scipy_for_one_value_per_patient_of_many() -> None:
    values = np.random.default_rng(0).gamma(
        2.0, 3.0, 300
    )  # with many values, the interval is not widened
    mean, low, high = mean_interval(values, range(300), samples=20000, seed=1, confidence=0.9)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20000, confidence_level=0.9, method="percentile", rng=2
    ).confidence_interval
    assert mean == pytest.approx(values.mean())
    assert low == pytest.approx(theirs.low, abs=0.03 * (high - low))
    assert high == pytest.approx(theirs.high, abs=0.03 * (high - low))


@pytest.mark.parametrize("count", [5, 10, 40])
def test_interval_has_its_nominal_coverage(count: int) -> None:
    rng = np.random.default_rng(count)
    patients = np.repeat(np.arange(count), 4)
    covered, trials = 0, 2000
    for seed in range(trials):
        values = np.repeat(rng.normal(5.0, 1.0, count), 4) + rng.normal(0.0, 0.5, 4 * count)
        _, low, high = mean_interval(values, patients, samples=400, seed=seed, confidence=0.95)
        covered += low <= 5.0 <= high
    assert 0.93 <= covered / trials <= 0.97


def test_one_gaussian_sample_gives_students_interval() -> None:
    values = stats.norm.ppf((np.arange(9) + 0.5) / 9)
    _, low, high = mean_interval(values, range(9), samples=50000, seed=0, confidence=0.95)
    theirs = stats.t.interval(0.95, 8, loc=values.mean(), scale=stats.sem(values))
    assert (low, high) == pytest.approx(theirs, abs=0.03)


def test_interval_stays_within_the_limits() -> None:
    values = [0.9, 0.99, 0.99, 0.99, 0.5]
    _, _, high = mean_interval(
        values, range(5), samples=500, seed=0, confidence=0.95, limits=(0.0, 1.0)
    )
    assert high == 1.0


def test_images_of_one_patient_count_as_one() -> None:
    values = np.repeat(np.random.default_rng(0).normal(size=50), 4)
    patients = np.repeat(np.arange(50), 4)
    settings = {"samples": 4000, "seed": 0, "confidence": 0.95}
    _, low, high = mean_interval(values, patients, **settings)
    _, image_low, image_high = mean_interval(values, np.arange(200), **settings)
    assert (high - low) / (image_high - image_low) == pytest.approx(2.0, rel=0.1)  # sqrt(4)


def test_patients_are_weighted_by_their_images() -> None:
    values, patients = [1.0] * 3 + [5.0] * 6, ["a"] * 3 + list("bcdefg")
    mean, low, high = mean_interval(values, patients, samples=500, seed=0, confidence=0.95)
    assert mean == pytest.approx(33 / 9)
    assert low < mean < high


def test_same_seed_same_interval() -> None:
    values = np.random.default_rng(0).normal(size=30)
    first, again, other = (
        mean_interval(values, range(30), samples=200, seed=seed, confidence=0.95)
        for seed in (3, 3, 4)
    )
    assert first == again != other


@pytest.mark.parametrize("count", [1, 4])
def test_few_patients_get_no_interval(count: int) -> None:
    patients = [number % count for number in range(8)]
    mean, low, high = mean_interval([1.0, 2.0] * 4, patients, samples=100, seed=0, confidence=0.95)
    assert mean == 1.5
    assert np.isnan([low, high]).all()


@pytest.mark.parametrize(
    ("values", "patients"), [([], []), ([1.0, np.nan], ["a", "b"]), ([1.0, 2.0], ["a"])]
)
def test_invalid_values_are_rejected(values: list[float], patients: list[str]) -> None:
    with pytest.raises(ValueError, match=r"finite|patient per value"):
        mean_interval(values, patients, samples=100, seed=0, confidence=0.95)
