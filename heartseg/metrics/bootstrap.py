"""Bootstrap confidence intervals over patients."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from heartseg.config.params import Evaluate

MIN_PATIENTS = 5
"""Minimum number of patients for an interval; 3 patients have only 10 different resamples."""
UNLIMITED = (-math.inf, math.inf)
NOT_NEGATIVE = (0.0, math.inf)
FRACTION = (0.0, 1.0)


def mean_interval(
    values: ArrayLike,
    patients: ArrayLike,
    *,
    samples: int,
    seed: int,
    confidence: float,
    limits: tuple[float, float] = UNLIMITED,
) -> tuple[float, float, float]:
    """Compute the mean over all values and its bootstrap interval over patients.

    Images of one patient resemble each other, so whole patients are drawn with replacement
    (the cluster bootstrap: Davison & Hinkley, Bootstrap Methods and their Application, 1997,
    section 3.8). Drawing images would give too narrow an interval.

    Args:
        values: Finite values (n,), one per image.
        patients: Patient of each value (n,).
        samples: Number of bootstrap samples.
        seed: Seed of the samples.
        confidence: Confidence level, for example 0.95.
        limits: Minimum and maximum possible value of the quantity.

    Returns:
        (mean, low, high); low and high are NaN with fewer than `MIN_PATIENTS` patients.

    Raises:
        ValueError: There are no values, the lengths differ, or a value is not finite.
    """
    values = np.asarray(values, float)
    names, index = np.unique(np.asarray(patients), return_inverse=True)
    if values.ndim != 1 or len(values) == 0 or index.shape != values.shape:
        raise ValueError(f"need one patient per value, got shapes {values.shape} and {index.shape}")
    if not np.isfinite(values).all():
        raise ValueError("values must be finite; a missed structure has its worst value, not NaN")
    sums = np.bincount(index, weights=values)
    counts = np.bincount(index)
    drawn = np.random.default_rng(seed).integers(len(names), size=(samples, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    mean = float(values.mean())
    return mean, *widened_interval(mean, means, len(names), confidence, limits)


def widened_interval(
    value: float,
    resampled: np.ndarray,
    patients: int,
    confidence: float,
    limits: tuple[float, float] = UNLIMITED,
) -> tuple[float, float]:
    """Compute the percentile interval of a bootstrap, widened for small numbers of patients.

    The percentile interval is too narrow for n patients: its variance is that of n instead of
    n - 1 degrees of freedom, and its quantiles are a normal distribution's instead of Student's
    (Hesterberg, The American Statistician 69(4), 2015). Both distances from `value` are
    therefore multiplied by sqrt(n / (n - 1)) * t / z. In simulations with
    normal values, a 95 % interval covers the true mean in 94 to 95 % of 3000 trials for n = 5
    to 40; without widening, in 83 % for n = 5 and 90 % for n = 10. If the values are as skewed as
    the Dice of a good model, it covers 92 to 94 %.

    Args:
        value: Statistic of the whole sample.
        resampled: Statistic of each bootstrap sample (samples,).
        patients: Number n of patients drawn for each sample.
        confidence: Confidence level, for example 0.95.
        limits: Minimum and maximum possible value of the statistic.

    Returns:
        (low, high); both NaN with fewer than `MIN_PATIENTS` patients.
    """
    if patients < MIN_PATIENTS:
        return math.nan, math.nan
    tail = (1 - confidence) / 2
    factor = math.sqrt(patients / (patients - 1)) * float(
        stats.t.isf(tail, patients - 1) / stats.norm.isf(tail)
    )
    ends = value + factor * (np.quantile(resampled, [tail, 1 - tail]) - value)
    low, high = np.clip(ends, *limits)
    return float(low), float(high)


def named_interval(
    name: str,
    values: ArrayLike,
    patients: ArrayLike,
    evaluate: Evaluate,
    limits: tuple[float, float] = UNLIMITED,
) -> dict[str, float]:
    """Compute `mean_interval` with the settings of `evaluate` in params.yaml.

    Args:
        name: Name of the quantity.
        values: Finite values (n,), one per image.
        patients: Patient of each value (n,).
        evaluate: Section `evaluate` of params.yaml.
        limits: Minimum and maximum possible value of the quantity.

    Returns:
        The mean under `name`, the interval under name_low and name_high.
    """
    mean, low, high = mean_interval(
        values,
        patients,
        samples=evaluate.bootstrap_samples,
        seed=evaluate.bootstrap_seed,
        confidence=evaluate.confidence,
        limits=limits,
    )
    return {name: mean, f"{name}_low": low, f"{name}_high": high}
