"""Agreement of two methods of measurement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from heartseg.config.params import Evaluate
from heartseg.metrics.bootstrap import NOT_NEGATIVE, named_interval


def agreement(reference: ArrayLike, measured: ArrayLike) -> dict[str, float]:
    """Bland-Altman statistics of paired measurements (Bland & Altman, Lancet 327, 1986).

    Pairs of which either value is not finite are left out and counted as missing.

    Returns:
        bias (mean of measured - reference), mae (mean absolute error), r (Pearson), icc (see
        `icc_2_1`), loa_low and loa_high (bias -+ 1.96 standard deviations of the differences);
        bias, mae and the limits in the unit of the input; n (pairs used) and missing. NaN where
        there are too few pairs: bias and mae need one, limits and icc two, and r two with both
        sides varying.

    Raises:
        ValueError: the two are not one-dimensional and of equal length.
    """
    first, second, missing = _pairs(reference, measured)
    difference = second - first
    n = len(difference)
    bias = float(difference.mean()) if n else np.nan
    half_width = 1.96 * float(difference.std(ddof=1)) if n > 1 else np.nan
    varies = n > 1 and np.ptp(first) > 0 and np.ptp(second) > 0
    return {
        "bias": bias,
        "mae": float(np.abs(difference).mean()) if n else np.nan,
        "r": float(np.corrcoef(first, second)[0, 1]) if varies else np.nan,
        "icc": icc_2_1(np.stack((first, second), axis=1)),
        "loa_low": bias - half_width,
        "loa_high": bias + half_width,
        "n": n,
        "missing": missing,
    }


def agreement_over_patients(
    reference: pd.Series, measured: pd.Series, patients: pd.Series, evaluate: Evaluate
) -> dict[str, float]:
    """`agreement` with bootstrap intervals of bias and mean absolute error over patients."""
    found = agreement(reference, measured)
    difference = (measured - reference).astype(float)
    usable = np.isfinite(difference)
    if not usable.any():
        nothing = ("bias_low", "bias_high", "mae_low", "mae_high")
        return found | dict.fromkeys(nothing, np.nan)
    difference, patients = difference[usable], patients[usable]
    return (
        found
        | named_interval("bias", difference, patients, evaluate)
        | named_interval("mae", difference.abs(), patients, evaluate, NOT_NEGATIVE)
    )


def icc_2_1(ratings: np.ndarray) -> float:
    """ICC(2,1): absolute agreement of single measurements, raters taken as a random sample.

    Shrout & Fleiss, Psychological Bulletin 86(2), 1979: (BMS - EMS) / (BMS + (k - 1) EMS +
    k (JMS - EMS) / n), of the mean squares between targets (BMS), between raters (JMS) and of
    the residual (EMS) of a two-way analysis of variance. Unlike r, a bias lowers it.

    Args:
        ratings: (n, k) finite values, a row per target, a column per rater, k at least 2.

    Returns:
        NaN with fewer than two targets, or where nothing varies.
    """
    n, k = ratings.shape
    if n < 2:
        return np.nan
    grand = ratings.mean()
    targets, raters = ratings.mean(axis=1), ratings.mean(axis=0)
    residual = ratings - targets[:, None] - raters + grand
    between = k * ((targets - grand) ** 2).sum() / (n - 1)
    judges = n * ((raters - grand) ** 2).sum() / (k - 1)
    error = (residual**2).sum() / ((n - 1) * (k - 1))
    total = between + (k - 1) * error + k * (judges - error) / n
    return float((between - error) / total) if total > 0 else np.nan


def classification(
    reference: ArrayLike, measured: ArrayLike, thresholds: Sequence[float]
) -> dict[str, dict[str, float]]:
    """Do both methods put a case on the same side of each threshold?

    Below a threshold is the positive finding (as with a reduced ejection fraction). Pairs of
    which either value is not finite are left out.

    Returns:
        By threshold, as text: true_below, false_below, false_above, true_above (numbers of
        cases; false_below is measured below, but not so by reference), accuracy (0 to 1) and
        kappa (Cohen, Educ Psychol Meas 20, 1960): agreement beyond chance, NaN where chance
        alone agrees always. Accuracy is NaN without pairs.

    Raises:
        ValueError: the two are not one-dimensional and of equal length.
    """
    first, second, _ = _pairs(reference, measured)
    found = {}
    for threshold in thresholds:
        is_low, called_low = first < threshold, second < threshold
        n = len(first)
        same = float((is_low == called_low).mean()) if n else np.nan
        rates = (is_low.mean(), called_low.mean()) if n else (np.nan, np.nan)
        chance = float(rates[0] * rates[1] + (1 - rates[0]) * (1 - rates[1]))
        found[f"{threshold:g}"] = {
            "true_below": int((is_low & called_low).sum()),
            "false_below": int((~is_low & called_low).sum()),
            "false_above": int((is_low & ~called_low).sum()),
            "true_above": int((~is_low & ~called_low).sum()),
            "accuracy": same,
            "kappa": (same - chance) / (1 - chance) if chance < 1 else np.nan,
        }
    return found


def _pairs(reference: ArrayLike, measured: ArrayLike) -> tuple[np.ndarray, np.ndarray, int]:
    """Both series without the pairs of which either is not finite, and the number of those."""
    first, second = np.asarray(reference, float), np.asarray(measured, float)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(
            f"need two equally long series, got shapes {first.shape} and {second.shape}"
        )
    usable = np.isfinite(first) & np.isfinite(second)
    return first[usable], second[usable], int((~usable).sum())
