"""Anatomical flags on hearts with one fault each."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from heartseg.config import Params
from heartseg.data.labels import Camus
from heartseg.data.prepared import encode_png
from heartseg.metrics.plausibility import FLAGS, area_ranges, flags, summarise_plausibility
from tests.examples import camus_reference_masks, real_data
from tests.metrics.shapes import FINE, UNEQUAL, heart


def flagged(labels: np.ndarray, *more: object) -> set[str]:
    found = flags(labels, FINE, *more)
    assert list(found) == [*FLAGS, "plausible"]
    assert found["plausible"] == (not any(found[name] for name in FLAGS))
    return {name for name in FLAGS if found[name]}


def centre(labels: np.ndarray, structure: Camus) -> tuple[slice, slice]:
    """A few pixels in the middle of a structure."""
    rows, columns = np.nonzero(labels == structure)
    row, column = int(np.median(rows)), int(np.median(columns))
    return slice(row - 2, row + 3), slice(column - 2, column + 3)


@pytest.mark.parametrize("degrees", [0, 25])
@pytest.mark.parametrize("spacing", [FINE, UNEQUAL])
def test_a_heart_is_plausible(degrees: float, spacing: tuple[float, float]) -> None:
    assert flags(heart(85, 22, degrees, spacing), spacing)["plausible"]


def island(labels: np.ndarray) -> None:
    labels[5:9, 5:9] = Camus.MYO


def corner(labels: np.ndarray) -> None:
    rows, columns = np.nonzero(labels == Camus.LA)
    labels[rows.max() + 1, columns[rows == rows.max()].max() + 1] = Camus.LA  # touches by a corner


def hole_in_cavity(labels: np.ndarray) -> None:
    labels[centre(labels, Camus.LV)] = Camus.BACKGROUND


def wall_in_cavity(labels: np.ndarray) -> None:
    labels[centre(labels, Camus.LV)] = Camus.MYO


def hole_in_wall(labels: np.ndarray) -> None:
    row = int(np.flatnonzero((labels == Camus.MYO).any(1))[0]) + 10
    column = int(np.median(np.flatnonzero(labels[row] == Camus.MYO)))
    labels[row : row + 2, column : column + 2] = Camus.BACKGROUND


def no_atrium(labels: np.ndarray) -> None:
    labels[labels == Camus.LA] = Camus.BACKGROUND


def atrium_apart(labels: np.ndarray) -> None:
    rows = np.flatnonzero((labels == Camus.LA).any(1))
    labels[rows[0] : rows[0] + 15][labels[rows[0] : rows[0] + 15] == Camus.LA] = 0  # 4.5 mm


def half_a_wall(labels: np.ndarray) -> None:
    columns = np.arange(labels.shape[1])
    labels[(labels == Camus.MYO) & (columns > np.median(columns))] = Camus.BACKGROUND


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (island, {"pieces"}),
        (corner, set()),
        (hole_in_cavity, {"holes"}),
        (wall_in_cavity, {"pieces", "holes"}),
        (hole_in_wall, {"holes"}),
        (no_atrium, {"incomplete", "lv_open"}),
        (atrium_apart, {"la_apart"}),
        (half_a_wall, {"lv_open"}),
    ],
)
def test_one_fault_each(spoil: Callable[[np.ndarray], None], expected: set[str]) -> None:
    labels = heart(85, 22)
    spoil(labels)
    assert flagged(labels) == expected


def test_ventricle_at_the_edge_of_the_image() -> None:
    labels = heart(85, 22)
    columns = np.flatnonzero((labels == Camus.LV).any(0))
    assert flagged(labels[:, columns[0] :]) == {"edge"}  # not open as well
    assert "edge" not in flagged(labels[:, columns[0] - 1 :])


def test_nothing_found() -> None:
    assert flagged(np.zeros((40, 50), np.uint8)) == {"incomplete"}


def test_areas_outside_the_training_patients_range() -> None:
    frames = pd.DataFrame(
        {
            "view": view,
            "phase": "ED",
            "mask": encode_png(heart(length, 22, spacing=UNEQUAL)),
            "spacing_row": UNEQUAL[0],
            "spacing_col": UNEQUAL[1],
        }
        for view, length in (("2CH", 70), ("2CH", 90), ("4CH", 60))
    )
    ranges = area_ranges(frames)
    low, high = ranges["2CH", "ED"][Camus.LV]
    assert low == pytest.approx(0.9 * np.pi / 2 * 70 * 22, rel=0.01)
    assert high == pytest.approx(1.1 * np.pi / 2 * 90 * 22, rel=0.01)
    assert flagged(heart(80, 22), ranges["2CH", "ED"]) == set()
    assert flagged(heart(88, 26), ranges["2CH", "ED"]) == {"area"}
    assert flagged(heart(80, 22), ranges["4CH", "ED"]) == {"area"}
    assert flagged(heart(88, 26), None) == set()  # no training patient has the view and phase


def test_summary_counts_cases_not_rows(params: Params) -> None:
    good, bad = flags(heart(60, 18), FINE), flags(np.zeros((9, 9), np.uint8), FINE)
    cases = pd.DataFrame(
        {"case_id": f"{patient}{view}", "patient": patient, "view": view, "phase": "ED"} | found
        for (patient, view, found), _ in itertools.product(
            [("a", "2CH", good), ("a", "4CH", bad), ("b", "2CH", good), ("b", "4CH", good)],
            range(3),  # structures
        )
    )
    summary = summarise_plausibility(cases, params.evaluate)
    assert (summary["n"], summary["fraction"]) == (4, 0.75)
    assert np.isnan(summary["fraction_low"])  # two patients allow no interval
    assert summary["by_view"]["2CH"]["fraction"] == 1.0
    assert summary["by_view"]["4CH"]["fraction"] == 0.5
    assert summary["by_phase"]["ED"]["n"] == 4
    assert summary["flags"] == dict.fromkeys(FLAGS, 0) | {"incomplete": 1}


@pytest.mark.slow
def test_real_reference_masks_are_plausible() -> None:
    """The areas of the validation patients are in the range of all the others."""
    lists = real_data("HEARTSEG_CAMUS_ROOT") / "database_split"
    held_out = set((lists / "subgroup_validation.txt").read_text().split())
    training, validation, found = [], [], []
    for patient, view, phase, labels, spacing in camus_reference_masks():
        if patient in held_out:
            validation.append(((view, phase), labels, spacing))
            found.append(flags(labels, spacing))
        else:
            if int(patient[-4:]) % 4 == 0:
                found.append(flags(labels, spacing))
            mask = {
                "mask": encode_png(labels),
                "spacing_row": spacing[0],
                "spacing_col": spacing[1],
            }
            training.append({"view": view, "phase": phase, **mask})
    ranges = area_ranges(pd.DataFrame(training))
    judged = [flags(labels, spacing, ranges[key]) for key, labels, spacing in validation]
    print(f"{len(found)} masks:\n{pd.DataFrame(found).sum()}")
    print(f"{len(judged)} with areas judged:\n{pd.DataFrame(judged).sum()}")
    assert np.mean([flag["plausible"] for flag in found]) > 0.98
    assert np.mean([flag["plausible"] for flag in judged]) > 0.95
