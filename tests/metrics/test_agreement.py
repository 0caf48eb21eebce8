"""Tests of agreement against values computed by hand and by scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from heartseg.metrics.agreement import agreement, icc_2_1, threshold_agreement


def test_four_pairs() -> None:
    result = agreement([50, 60, 40, 55], [52, 57, 44, 56])  # differences 2, -3, 4, 1
    sd = math.sqrt(((2 - 1) ** 2 + (-3 - 1) ** 2 + (4 - 1) ** 2 + (1 - 1) ** 2) / 3)
    assert result["bias"] == pytest.approx(1.0)
    assert result["mae"] == pytest.approx(2.5)
    assert result["loa_low"] == pytest.approx(1.0 - 1.96 * sd)
    assert result["loa_high"] == pytest.approx(1.0 + 1.96 * sd)
    assert result["r"] == pytest.approx(stats.pearsonr([50, 60, 40, 55], [52, 57, 44, 56])[0])
    assert (result["n"], result["missing"]) == (4, 0)


def test_pairs_that_are_not_finite_are_counted_and_left_out() -> None:
    full = agreement([50, 60, 40], [52, 57, 44])
    result = agreement([50, np.nan, 60, 40, 30], [52, 10, 57, 44, np.inf])
    assert result == full | {"missing": 2}


def test_too_few_pairs() -> None:
    nothing = agreement([np.nan], [1.0])
    assert (nothing["n"], nothing["missing"]) == (0, 1)
    assert all(
        math.isnan(nothing[key]) for key in ("bias", "mae", "r", "icc", "loa_low", "loa_high")
    )
    one = agreement([5.0], [7.0])
    assert (one["bias"], one["mae"], one["n"]) == (2.0, 2.0, 1)
    assert math.isnan(one["r"])
    assert math.isnan(one["loa_low"])
    assert math.isnan(agreement([5, 5, 5], [4, 5, 6])["r"])  # the reference does not vary


def test_unequal_lengths_are_rejected() -> None:
    with pytest.raises(ValueError, match="shapes"):
        agreement([1, 2], [1, 2, 3])


def test_icc_of_shrout_and_fleiss() -> None:
    """Four judges and six targets of table 2; ICC(2,1) is 0.29 in table 4."""
    ratings = np.array(
        [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float
    )
    assert icc_2_1(ratings) == pytest.approx(0.2898, abs=1e-4)


def test_a_bias_lowers_icc_but_not_r() -> None:
    reference = np.array([30.0, 40, 50, 60, 70])
    same, shifted = agreement(reference, reference), agreement(reference, reference + 10)
    assert same["icc"] == pytest.approx(1.0)
    assert shifted["r"] == pytest.approx(1.0)
    # Between targets 2 * 1000 / 4, between raters 5 * 50, no residual: 500 / (500 + 2 * 250 / 5)
    assert shifted["icc"] == pytest.approx(500 / 600)
    assert math.isnan(agreement([5], [5])["icc"])
    assert math.isnan(agreement([5, 5], [5, 5])["icc"])


def test_threshold_agreement() -> None:
    reference = [25, 35, 45, 55, 65, np.nan]
    measured = [28, 42, 38, 56, 49, 20]
    found = threshold_agreement(reference, measured, [30, 40, 50])
    assert list(found) == ["30", "40", "50"]
    assert found["30"] == {
        **{"true_below": 1, "false_below": 0, "false_above": 0, "true_above": 4},
        **{"accuracy": 1.0, "kappa": 1.0},
    }
    counts = {"true_below": 1, "false_below": 1, "false_above": 1, "true_above": 2}
    assert {key: found["40"][key] for key in counts} == counts
    assert found["40"]["accuracy"] == pytest.approx(0.6)
    chance = 0.4 * 0.4 + 0.6 * 0.6
    assert found["40"]["kappa"] == pytest.approx((0.6 - chance) / (1 - chance))
    assert found["50"]["false_below"] == 1


def test_threshold_agreement_without_variation() -> None:
    (all_above,) = threshold_agreement([60, 70], [65, 75], [50]).values()
    assert all_above["accuracy"] == 1.0
    assert math.isnan(all_above["kappa"])
    (nothing,) = threshold_agreement([np.nan], [65], [50]).values()
    assert math.isnan(nothing["accuracy"])
    assert math.isnan(nothing["kappa"])
