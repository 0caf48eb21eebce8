"""Agreement of two methods of measurement."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def agreement(reference: ArrayLike, measured: ArrayLike) -> dict[str, float]:
    """Bland-Altman statistics of paired measurements (Bland & Altman, Lancet 327, 1986).

    Pairs of which either value is not finite are left out and counted as missing.

    Returns:
        bias (mean of measured - reference), mae (mean absolute error), r (Pearson), loa_low
        and loa_high (bias -+ 1.96 standard deviations of the differences), all in the unit of
        the input; n (pairs used) and missing. NaN where there are too few pairs: bias and mae
        need one, the limits two, and r two with both sides varying.

    Raises:
        ValueError: the two are not one-dimensional and of equal length.
    """
    first, second = np.asarray(reference, float), np.asarray(measured, float)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(
            f"need two equally long series, got shapes {first.shape} and {second.shape}"
        )
    usable = np.isfinite(first) & np.isfinite(second)
    first, second = first[usable], second[usable]
    difference = second - first
    n = len(difference)
    bias = float(difference.mean()) if n else np.nan
    half_width = 1.96 * float(difference.std(ddof=1)) if n > 1 else np.nan
    varies = n > 1 and np.ptp(first) > 0 and np.ptp(second) > 0
    return {
        "bias": bias,
        "mae": float(np.abs(difference).mean()) if n else np.nan,
        "r": float(np.corrcoef(first, second)[0, 1]) if varies else np.nan,
        "loa_low": bias - half_width,
        "loa_high": bias + half_width,
        "n": n,
        "missing": int((~usable).sum()),
    }
