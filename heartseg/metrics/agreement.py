"""Agreement of two methods of measurement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from heartseg.config.params import Evaluate
from heartseg.metrics.bootstrap import NOT_NEGATIVE, named_interval


def agreement(reference: ArrayLike, measured: ArrayLike) -> dict[str, float]:
    """Compute Bland-Altman statistics of paired measurements (Bland & Altman, Lancet 327, 1986).

    Pairs with a value that is not finite are left out and counted as missing.

    Args:
        reference: Reference values (n,).
        measured: Measured values (n,).

    Returns:
        bias (mean of measured - reference), mae (mean absolute error), r (Pearson), icc (see
        `icc_2_1`), loa_low and loa_high (bias ± 1.96 standard deviations of the differences), n
        (number of pairs) and missing. bias, mae and the limits have the unit of the input. A value
        is NaN if there are too few pairs: bias and mae need one pair, the limits and icc two, and r
        two pairs with different values on both sides.

    Raises:
        ValueError: The inputs are not one-dimensional or differ in length.
    """
    first, second, missing = _finite_pairs(reference, measured)
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
    """Compute `agreement` with bootstrap intervals of bias and mae over patients.

    Args:
        reference: Reference values (n,).
        measured: Measured values (n,).
        patients: Patient of each pair (n,).
        evaluate: Section `evaluate` of params.yaml, with the settings of the bootstrap.

    Returns:
        The values of `agreement`, bias_low, bias_high, mae_low and mae_high.
    """
    found = agreement(reference, measured)
    difference = (measured - reference).astype(float)
    usable = np.isfinite(difference)
    if not usable.any():
        intervals = ("bias_low", "bias_high", "mae_low", "mae_high")
        return found | dict.fromkeys(intervals, np.nan)
    difference, patients = difference[usable], patients[usable]
    return (
        found
        | named_interval("bias", difference, patients, evaluate)
        | named_interval("mae", difference.abs(), patients, evaluate, NOT_NEGATIVE)
    )


def icc_2_1(ratings: np.ndarray) -> float:
    """Compute the intraclass correlation ICC(2,1): absolute agreement of single measurements.

    Shrout & Fleiss, Psychological Bulletin 86(2), 1979: (BMS - EMS) / (BMS + (k - 1) EMS +
    k (JMS - EMS) / n), with the mean squares between targets (BMS), between raters (JMS) and of the
    residual (EMS) of a two-way analysis of variance. Unlike r, it is lowered by a bias.

    Args:
        ratings: Finite values (n, k) with a row per target and a column per rater, k at least 2.

    Returns:
        The coefficient; NaN with fewer than two targets or if all values are equal.
    """
    n, k = ratings.shape
    if n < 2:
        return np.nan
    grand = ratings.mean()
    targets, raters = ratings.mean(axis=1), ratings.mean(axis=0)
    residual = ratings - targets[:, None] - raters + grand
    bms = k * ((targets - grand) ** 2).sum() / (n - 1)
    jms = n * ((raters - grand) ** 2).sum() / (k - 1)
    ems = (residual**2).sum() / ((n - 1) * (k - 1))
    total = bms + (k - 1) * ems + k * (jms - ems) / n
    return float((bms - ems) / total) if total > 0 else np.nan


def threshold_agreement(
    reference: ArrayLike, measured: ArrayLike, thresholds: Sequence[float]
) -> dict[str, dict[str, float]]:
    """Compare on which side of each threshold both methods place a case.

    A value below a threshold is the positive finding, as with a reduced ejection fraction. Pairs
    with a value that is not finite are left out.

    Args:
        reference: Reference values (n,).
        measured: Measured values (n,).
        thresholds: Thresholds in the unit of the values.

    Returns:
        For each threshold, as text: true_below, false_below (measured below, reference not),
        false_above and true_above as numbers of cases; accuracy (0 to 1; NaN without pairs); kappa
        (Cohen, Educ Psychol Meas 20, 1960), the agreement beyond chance (NaN if the expected
        agreement is 1).

    Raises:
        ValueError: The inputs are not one-dimensional or differ in length.
    """
    first, second, _ = _finite_pairs(reference, measured)
    found = {}
    for threshold in thresholds:
        below, measured_below = first < threshold, second < threshold
        n = len(first)
        accuracy = float((below == measured_below).mean()) if n else np.nan
        rates = (below.mean(), measured_below.mean()) if n else (np.nan, np.nan)
        expected = float(rates[0] * rates[1] + (1 - rates[0]) * (1 - rates[1]))
        found[f"{threshold:g}"] = {
            "true_below": int((below & measured_below).sum()),
            "false_below": int((~below & measured_below).sum()),
            "false_above": int((below & ~measured_below).sum()),
            "true_above": int((~below & ~measured_below).sum()),
            "accuracy": accuracy,
            "kappa": (accuracy - expected) / (1 - expected) if expected < 1 else np.nan,
        }
    return found


def _finite_pairs(reference: ArrayLike, measured: ArrayLike) -> tuple[np.ndarray, np.ndarray, int]:
    """Return both series without pairs that are not finite, and the number of these pairs."""
    first, second = np.asarray(reference, float), np.asarray(measured, float)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(
            f"reference and measured must be (n,), got shapes {first.shape} and {second.shape}"
        )
    usable = np.isfinite(first) & np.isfinite(second)
    return first[usable], second[usable], int((~usable).sum())
