"""Paired differences of two models, compared with values by hand and from scipy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from heartseg.config.params import Evaluate
from heartseg.evaluation.paired import (
    compare_agreement,
    compare_cases,
    most_changed,
    pair_cases,
    paired_difference,
    wilcoxon_p,
)

EVALUATE = Evaluate.model_validate(
    {
        "split": "test",
        "postprocess": "none",
        "tta": "none",
        "tta_gain": 0.0,
        "bootstrap_samples": 2000,
        "bootstrap_seed": 0,
        "confidence": 0.95,
    }
)


def camus_cases(dice: dict[str, tuple[float, float, float]]) -> pd.DataFrame:
    """Make cases.csv from the Dice of LV, MYO and LA by case, "patient_VIEW_PHASE"."""
    rows = []
    for case, values in dice.items():
        patient, view, phase = case.split("_")
        about = {"case_id": case, "patient": patient, "view": view, "phase": phase}
        about["quality"] = "Good" if patient == "p1" else "Poor"
        for structure, value in zip(("LV", "MYO", "LA"), values, strict=True):
            own = {"structure": structure, "dice": value, "hd95_mm": 10 * (1 - value)}
            rows.append(about | own | {"msd_mm": 5 * (1 - value)})
    return pd.DataFrame(rows)


FIRST = camus_cases(
    {
        "p1_2CH_ED": (0.90, 0.80, 0.70),
        "p1_4CH_ES": (0.80, 0.80, 0.80),
        "p2_2CH_ED": (0.70, 0.70, 0.70),
    }
)
SECOND = camus_cases(
    {
        "p2_2CH_ED": (0.60, 0.60, 0.60),  # in another order
        "p1_2CH_ED": (0.92, 0.84, 0.76),
        "p1_4CH_ES": (0.82, 0.82, 0.82),
    }
)


def test_wilcoxon_by_counting_all_signs() -> None:
    values = np.array([0.3, -0.1, 0.7, 0.2, 0.5, -0.4])
    ranks = np.abs(values).argsort().argsort() + 1
    observed = ranks[values > 0].sum()
    sums = [
        sum(rank for rank, plus in zip(ranks, signs, strict=True) if plus)
        for signs in itertools.product((0, 1), repeat=6)
    ]
    middle = ranks.sum() / 2
    by_hand = np.mean([abs(s - middle) >= abs(observed - middle) - 1e-9 for s in sums])
    assert wilcoxon_p(values, list("abcdef")) == pytest.approx(by_hand)
    assert wilcoxon_p(values, list("abcdef")) == pytest.approx(stats.wilcoxon(values).pvalue)


def test_images_of_a_patient_are_one_pair_for_the_test() -> None:
    values = [0.1, 0.3, 0.2, 0.4, 0.5]  # means 0.2, 0.3, 0.5
    assert wilcoxon_p(values, ["a", "a", "b", "b", "c"]) == 0.25  # 2 of the 2^3 signs
    repeated = np.repeat([0.2, 0.3, 0.5], 50)
    assert wilcoxon_p(repeated, np.repeat(["a", "b", "c"], 50)) == 0.25


def test_equal_models_do_not_differ() -> None:
    zeros, patients = pd.Series([0.0] * 5), pd.Series(list("abcde"))
    found = paired_difference(zeros, patients, EVALUATE)
    assert found["p"] == 1.0
    assert (found["difference"], found["difference_low"], found["difference_high"]) == (0, 0, 0)
    assert (found["rises"], found["falls"], found["n"]) == (0, 0, 5)


def test_pairs_without_a_value_are_left_out() -> None:
    difference = pd.Series([1.0, np.nan, 3.0, np.inf])
    found = paired_difference(difference, pd.Series(["a", "a", "b", "c"]), EVALUATE)
    assert (found["n"], found["n_patients"], found["difference"]) == (2, 2, 2.0)
    assert math.isnan(found["difference_low"])  # two patients allow no interval
    nothing = paired_difference(pd.Series([np.nan]), pd.Series(["a"]), EVALUATE)
    assert nothing["n"] == 0
    assert math.isnan(nothing["p"])


def test_rows_meet_by_case_and_structure() -> None:
    pairs = pair_cases(FIRST, SECOND, "camus")
    found = compare_cases(pairs, "camus", EVALUATE).set_index(
        ["metric", "group", "value", "structure"]
    )
    overall = found.loc[("dice", "all", "", "mean")]
    # means of the cases: 0.80 and 0.84, 0.80 and 0.82, 0.70 and 0.60
    assert overall["a"] == pytest.approx((0.80 + 0.80 + 0.70) / 3)
    assert overall["b"] == pytest.approx((0.84 + 0.82 + 0.60) / 3)
    assert overall["difference"] == pytest.approx((0.04 + 0.02 - 0.10) / 3)
    assert (overall["rises"], overall["falls"], overall["n"], overall["n_patients"]) == (2, 1, 3, 2)
    assert found.loc[("hd95_mm", "all", "", "LA"), "difference"] == pytest.approx(
        -10 * (0.06 + 0.02 - 0.10) / 3
    )
    assert found.loc[("dice", "quality", "Poor", "LV"), "difference"] == pytest.approx(-0.1)
    assert found.loc[("dice", "view", "2CH", "LV"), "n"] == 2
    assert found.loc[("dice", "phase", "ES", "MYO"), "difference"] == pytest.approx(0.02)
    assert ("hd95_mm", "all", "", "mean") not in found.index


def test_the_other_way_round_the_signs_change() -> None:
    one = compare_cases(pair_cases(FIRST, SECOND, "camus"), "camus", EVALUATE)
    other = compare_cases(pair_cases(SECOND, FIRST, "camus"), "camus", EVALUATE)
    keys = ["metric", "group", "value", "structure"]
    both = one.merge(other, on=keys, suffixes=("", "_other"))
    assert len(both) == len(one)
    np.testing.assert_allclose(both["difference"], -both["difference_other"])
    np.testing.assert_allclose(both["p"], both["p_other"])
    assert (both["rises"] == both["falls_other"]).all()


def test_the_greatest_changes_either_way() -> None:
    found = most_changed(pair_cases(FIRST, SECOND, "camus"), "camus", 2)
    assert list(found["case_id"]) == ["p2_2CH_ED", "p1_2CH_ED"]
    assert list(found["difference"]) == pytest.approx([-0.10, 0.04])


def test_mmode_has_one_structure_and_no_distances() -> None:
    first = FIRST[FIRST["structure"] == "LV"].assign(hd95_mm=np.nan, view="", phase="")
    second = SECOND[SECOND["structure"] == "LV"].assign(hd95_mm=np.nan, view="", phase="")
    found = compare_cases(pair_cases(first, second, "mmode"), "mmode", EVALUATE)
    assert set(found["metric"]) == {"dice"}
    assert set(found["structure"]) == {"LV"}
    assert set(found["group"]) == {"all", "quality"}


@pytest.mark.parametrize(
    "other", [SECOND[SECOND["patient"] == "p1"], pd.concat([SECOND, SECOND])], ids=["less", "twice"]
)
def test_other_cases_are_no_pairs(other: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="name"):
        pair_cases(FIRST, other, "camus")


def test_errors_are_compared_where_both_models_could_be_measured() -> None:
    names = ("lvidd_mm", "lvids_mm", "fs_percent", "ef_percent", "hr_bpm")
    rows = pd.DataFrame({"case_id": ["w1", "w2", "w3"], "patient": ["a", "b", "c"]})
    for name in names:
        rows[f"{name}_reference"] = [10.0, 20.0, 30.0]
    one = rows.assign(**{f"{name}_predicted": [12.0, 19.0, 30.0] for name in names})
    other = rows.assign(**{f"{name}_predicted": [11.0, 23.0, np.nan] for name in names})
    found = compare_agreement(one, other.iloc[::-1], "mmode", EVALUATE)["lvidd_mm"]
    assert found["a"]["mae"] == pytest.approx(1.0)  # errors 2, 1, 0
    assert (found["b"]["n"], found["b"]["missing"]) == (2, 1)
    assert found["error"]["n"] == 2
    assert found["error"]["difference"] == pytest.approx(((1 - 2) + (3 - 1)) / 2)
    with pytest.raises(ValueError, match="name"):
        compare_agreement(one, other.iloc[:2], "mmode", EVALUATE)
