"""Rows and summaries of an evaluation, on cases whose values are known."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

from heartseg.config.params import Evaluate, Params
from heartseg.data.species import HUMAN, MOUSE
from heartseg.datasets.camus import Camus
from heartseg.evaluation.clinical import SUMMARY_COLUMNS
from heartseg.evaluation.summary import case_metrics, json_safe, summarise_camus, summarise_mmode
from heartseg.metrics.mmode import window_row
from tests.metrics.shapes import MM_PER_ROW, S_PER_COLUMN, strip

pytestmark = pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")

DICE = {"LV": 0.9, "MYO": 0.8, "LVepi": 0.95, "LA": 0.7}


@pytest.fixture
def settings(params: Params) -> Evaluate:
    return params.evaluate


def table(*cases: tuple[str, str, str, str, float]) -> pd.DataFrame:
    """Make rows of cases.csv from patient, view, phase, quality and a reduction of Dice."""
    return pd.DataFrame(
        {
            "case_id": f"{patient}_{view}_{phase}",
            "patient": patient,
            "view": view,
            "phase": phase,
            "quality": quality,
            "structure": structure,
            "dice": dice - less,
            "hd95_mm": 4.0 + less,
            "msd_mm": 1.0,
            "missed": less > 0.5,
        }
        for patient, view, phase, quality, less in cases
        for structure, dice in DICE.items()
    )


CASES = table(
    ("a", "2CH", "ED", "Good", 0.0),
    ("a", "4CH", "ED", "Good", 0.1),
    ("b", "2CH", "ES", "Poor", 0.2),
)
NO_EF = pd.DataFrame(columns=SUMMARY_COLUMNS)


def test_case_metrics_of_a_shifted_structure() -> None:
    reference = np.zeros((40, 50), np.uint8)
    reference[10:20, 10:20] = Camus.LV
    reference[10:20, 20:30] = Camus.MYO
    prediction = np.zeros_like(reference)
    prediction[10:20, 15:25] = Camus.LV
    rows = {
        row["structure"]: row
        for row in case_metrics("camus", "x", prediction, reference, (1.0, 0.5))
    }
    assert list(rows) == ["LV", "MYO", "LVepi", "LA"]
    assert rows["LV"]["dice"] == pytest.approx(0.5)
    assert rows["LV"]["hd95_mm"] == pytest.approx(2.5)  # 5 columns of 0.5 mm
    assert rows["LVepi"]["dice"] == pytest.approx(2 * 100 / 300)
    assert rows["MYO"]["dice"] == 0.0
    assert rows["MYO"]["missed"]
    assert rows["MYO"]["hd95_mm"] == rows["MYO"]["msd_mm"] == pytest.approx(math.hypot(40, 25))
    assert (rows["LA"]["dice"], rows["LA"]["hd95_mm"], rows["LA"]["missed"]) == (1.0, 0.0, False)


def test_what_is_invented_is_not_missed_but_has_the_worst_value() -> None:
    reference = np.zeros((30, 40), np.uint8)
    prediction = reference.copy()
    prediction[3:6, 3:6] = Camus.LA
    row = case_metrics("camus", "x", prediction, reference, (1.0, 1.0))[-1]
    assert (row["dice"], row["hd95_mm"], row["missed"]) == (0.0, pytest.approx(50.0), False)


def test_mmode_cases_have_no_distances() -> None:
    mask = strip(60).astype(np.uint8)
    (row,) = case_metrics("mmode", "x", mask, mask, (MM_PER_ROW, S_PER_COLUMN))
    assert row["dice"] == 1.0
    assert math.isnan(row["hd95_mm"])
    assert math.isnan(row["msd_mm"])


def test_overall_means_and_intervals(settings: Evaluate) -> None:
    summary = summarise_camus(CASES, NO_EF, settings)
    assert (summary["n_patients"], summary["n_cases"]) == (2, 3)
    lv = summary["overall"]["LV"]
    assert lv["dice"] == pytest.approx(0.8)
    assert lv["dice_low"] is None  # two patients allow no interval
    assert lv["hd95_mm"] == pytest.approx(4.1)
    assert lv["missed"] == 0
    assert summary["overall"]["mean"]["dice"] == pytest.approx((0.8 + 0.7 + 0.6) / 3)  # no LVepi


def test_subgroups(settings: Evaluate) -> None:
    summary = summarise_camus(CASES, NO_EF, settings)
    assert {name: group["n"] for name, group in summary["by_view"].items()} == {"2CH": 2, "4CH": 1}
    assert summary["by_view"]["2CH"]["LA"]["dice"] == pytest.approx(0.6)
    assert summary["by_phase"]["ED"]["LV"]["hd95_mm"] == pytest.approx(4.05)
    assert summary["by_quality"]["Poor"]["mean"]["dice"] == pytest.approx(0.6)


def test_subgroups_have_intervals_over_patients(settings: Evaluate) -> None:
    copies = [
        CASES.assign(patient=CASES["patient"] + copy, case_id=CASES["case_id"] + copy)
        for copy in "123456"
    ]
    summary = summarise_camus(pd.concat(copies), NO_EF, settings)
    view = summary["by_view"]["2CH"]  # six patients without loss, six with 0.2
    assert view["LV"]["dice"] == pytest.approx(0.8)
    assert 0.7 < view["LV"]["dice_low"] < 0.76
    assert 0.84 < view["LV"]["dice_high"] < 0.9
    assert 4.0 < view["LA"]["hd95_mm_low"] < 4.1 < view["LA"]["hd95_mm_high"] < 4.2
    assert view["LV"]["missed"] == 0
    phase = summary["by_phase"]["ED"]["LV"]  # equal patients: no width
    assert (phase["dice_low"], phase["dice"], phase["dice_high"]) == pytest.approx((0.85,) * 3)
    assert summary["by_quality"]["Good"]["LV"]["dice_low"] == pytest.approx(0.85)
    assert list(view["LV"]) == list(summary["overall"]["LV"])


def test_unknown_quality_is_no_subgroup(settings: Evaluate) -> None:
    summary = summarise_camus(CASES.assign(quality=""), NO_EF, settings)
    assert summary["by_quality"] == {}


def test_json_has_no_nan_and_six_digits(settings: Evaluate) -> None:
    summary = summarise_camus(CASES, NO_EF, settings)
    text = json.dumps(summary, allow_nan=False)
    assert json.loads(text) == summary
    assert summary["ef"]["ef_vs_reference"]["mae"] is None
    assert summary["ef"]["ef_vs_reference"]["n"] == 0
    assert json_safe({"a": np.float64(1 / 3), "b": math.inf, "c": 2, "d": "x", "e": True}) == {
        "a": 0.333333,
        "b": None,
        "c": 2,
        "d": "x",
        "e": True,
    }


def test_a_human_heart_by_hand() -> None:
    """Like the strips of mice, but 12 times larger and 6 times slower: 4.8 to 2.88 cm, 75/min."""
    mask = strip(1500).astype(np.uint8)
    row = window_row(mask, mask, (12 * MM_PER_ROW, 6 * S_PER_COLUMN), HUMAN)
    assert row["lvidd_mm_predicted"] == pytest.approx(48.0, rel=0.025)
    assert row["hr_bpm_predicted"] == pytest.approx(75.0, rel=0.02)
    cm = (row["lvidd_mm_predicted"] / 10, row["lvids_mm_predicted"] / 10)
    edv, esv = (7 / (2.4 + d) * d**3 for d in cm)
    assert row["ef_percent_predicted"] == pytest.approx(100 * (edv - esv) / edv, abs=0.5)


def test_mmode_summary(settings: Evaluate) -> None:
    spacing = (MM_PER_ROW, S_PER_COLUMN)
    reference, wider = strip(800).astype(np.uint8), strip(800, lvidd=4.4).astype(np.uint8)
    truth = {"lvidd_mm_true": 4.0, "lvids_mm_true": np.nan, "hr_bpm_true": 450.0}
    truth |= {"fs_percent_true": np.nan, "ef_percent_true": np.nan}
    windows = pd.DataFrame(
        [
            window_row(reference, reference, spacing, MOUSE) | truth,
            window_row(wider, reference, spacing, MOUSE) | truth,
            window_row(np.zeros_like(reference), reference, spacing, MOUSE) | truth,
        ]
    )
    windows["patient"] = ["x", "x", "y"]
    rows = [
        {"patient": str(n), "quality": ""} | row
        for n, found in enumerate((reference, wider, np.zeros_like(reference)))
        for row in case_metrics("mmode", str(n), found, reference, spacing)
    ]
    summary = summarise_mmode(pd.DataFrame(rows), windows, settings)
    json.dumps(summary, allow_nan=False)
    assert summary["overall"]["LV"]["missed"] == 1
    assert set(summary["overall"]) == {"LV"}
    assert "hd95_mm" not in summary["overall"]["LV"]
    assert summary["lvidd_mm"]["bias"] == pytest.approx(0.2, abs=0.03)  # 0 and 0.4 mm
    assert (summary["lvidd_mm"]["n"], summary["lvidd_mm"]["missing"]) == (2, 1)
    assert summary["lvidd_mm"]["bias_low"] is None  # of one animal
    assert summary["hr_bpm"]["mae"] == pytest.approx(0.0, abs=5.0)
    assert summary["truth"]["lvidd_mm"]["bias"] == pytest.approx(0.2, abs=0.06)
    assert set(summary["truth"]) == {"lvidd_mm", "hr_bpm"}
