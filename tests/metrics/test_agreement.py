"""Bland-Altman statistics worked out by hand and by scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from heartseg.metrics.agreement import agreement


def test_four_pairs_by_hand() -> None:
    result = agreement([50, 60, 40, 55], [52, 57, 44, 56])  # differences 2, -3, 4, 1
    sd = math.sqrt(((2 - 1) ** 2 + (-3 - 1) ** 2 + (4 - 1) ** 2 + (1 - 1) ** 2) / 3)
    assert result["bias"] == pytest.approx(1.0)
    assert result["mae"] == pytest.approx(2.5)
    assert result["loa_low"] == pytest.approx(1.0 - 1.96 * sd)
    assert result["loa_high"] == pytest.approx(1.0 + 1.96 * sd)
    assert result["r"] == pytest.approx(stats.pearsonr([50, 60, 40, 55], [52, 57, 44, 56])[0])
    assert (result["n"], result["missing"]) == (4, 0)


def test_pairs_without_a_value_are_counted_and_left_out() -> None:
    full = agreement([50, 60, 40], [52, 57, 44])
    result = agreement([50, np.nan, 60, 40, 30], [52, 10, 57, 44, np.inf])
    assert result == full | {"missing": 2}


def test_too_few_pairs() -> None:
    nothing = agreement([np.nan], [1.0])
    assert (nothing["n"], nothing["missing"]) == (0, 1)
    assert all(math.isnan(nothing[key]) for key in ("bias", "mae", "r", "loa_low", "loa_high"))
    one = agreement([5.0], [7.0])
    assert (one["bias"], one["mae"], one["n"]) == (2.0, 2.0, 1)
    assert math.isnan(one["r"])
    assert math.isnan(one["loa_low"])
    assert math.isnan(agreement([5, 5, 5], [4, 5, 6])["r"])  # the reference does not vary


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="equally long"):
        agreement([1, 2], [1, 2, 3])
