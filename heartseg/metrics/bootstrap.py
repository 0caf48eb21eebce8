"""Confidence intervals of a mean over images that share patients."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from heartseg.config import Evaluate


def mean_interval(
    values: ArrayLike, patients: ArrayLike, *, samples: int, seed: int, confidence: float
) -> tuple[float, float, float]:
    """Mean over all values, and its percentile bootstrap interval over patients.

    Images of one patient resemble each other, so whole patients are drawn with replacement
    (the cluster bootstrap: Davison & Hinkley, Bootstrap Methods and their Application, 1997,
    section 3.8); drawing images would give too narrow an interval.

    Args:
        values: (n,) finite values, one per image.
        patients: (n,) the patient of each.
        samples: number of bootstrap samples.
        seed: the same seed gives the same interval.
        confidence: e.g. 0.95.

    Returns:
        (mean, low, high)

    Raises:
        ValueError: no values, unequal lengths, or a value that is not finite.
    """
    values = np.asarray(values, float)
    names, index = np.unique(np.asarray(patients), return_inverse=True)
    if values.ndim != 1 or len(values) == 0 or index.shape != values.shape:
        raise ValueError(f"need one patient per value, got shapes {values.shape} and {index.shape}")
    if not np.isfinite(values).all():
        raise ValueError("values must be finite: a missed structure has its worst value, not NaN")
    sums = np.bincount(index, weights=values)
    counts = np.bincount(index)
    drawn = np.random.default_rng(seed).integers(len(names), size=(samples, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(values.mean()), float(low), float(high)


def named_interval(
    name: str, values: ArrayLike, patients: ArrayLike, evaluate: Evaluate
) -> dict[str, float]:
    """`mean_interval` as `evaluate` in params.yaml wants it, under name, name_low and name_high."""
    mean, low, high = mean_interval(
        values,
        patients,
        samples=evaluate.bootstrap_samples,
        seed=evaluate.bootstrap_seed,
        confidence=evaluate.confidence,
    )
    return {name: mean, f"{name}_low": low, f"{name}_high": high}
