"""Tests of the plausibility flags on hearts with one error each."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from heartseg.config.params import Params
from heartseg.data.prepared import encode_png
from heartseg.datasets.camus import Camus
from heartseg.metrics.plausibility import (
    CASE_FLAGS,
    FLAGS,
    PATIENT_FLAGS,
    area_ranges,
    flags,
    is_cut_off,
    patient_flags,
    summarise_plausibility,
    summarise_volumes,
)
from tests.examples import camus_reference_masks, real_data
from tests.metrics.shapes import FINE, UNEQUAL, heart

COARSE = (0.8, 0.8)


def flagged(labels: np.ndarray, *more: object) -> set[str]:
    found = flags(labels, FINE, *more)
    assert list(found) == [*FLAGS, "plausible"]
    assert found["plausible"] == (not any(found[name] for name in FLAGS))
    return {name for name in FLAGS if found[name]}


def centre(labels: np.ndarray, structure: Camus) -> tuple[slice, slice]:
    """Return a few pixels in the centre of a structure."""
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
def test_each_error_sets_its_flag(spoil: Callable[[np.ndarray], None], expected: set[str]) -> None:
    labels = heart(85, 22)
    spoil(labels)
    assert flagged(labels) == expected


def test_ventricle_at_the_edge_of_the_image() -> None:
    labels = heart(85, 22)
    columns = np.flatnonzero((labels == Camus.LV).any(0))
    assert flagged(labels[:, columns[0] :]) == {"edge"}  # not open as well
    assert "edge" not in flagged(labels[:, columns[0] - 1 :])


def sector(labels: np.ndarray, right: int) -> np.ndarray:
    """Return grey values of a triangular sector that ends at a column of the lowest row."""
    height, width = labels.shape
    rows, columns = np.indices(labels.shape)
    left, end = width / 2 * (1 - rows / height), width / 2 + (right - width / 2) * rows / height
    return np.where((columns > left) & (columns < end), 60, 0).astype(np.uint8)


def test_ventricle_at_the_edge_of_the_ultrasound_sector() -> None:
    """A wall may extend beyond the sector; a cavity that is cut off ends on its edge."""
    labels = heart(85, 22)
    wide = sector(labels, labels.shape[1])
    assert not is_cut_off(labels, FINE, wide)
    narrow = sector(labels, int(np.flatnonzero((labels == Camus.LV).any(0))[-1]) + 10)
    assert not is_cut_off(labels, FINE, narrow)  # drawn beyond the sector
    cut = np.where(narrow > 0, labels, 0)
    assert is_cut_off(cut, FINE, narrow)
    assert not is_cut_off(cut, FINE)
    assert flags(cut, FINE, None, narrow)["edge"]
    noisy = narrow + np.random.default_rng(0).integers(0, 6, labels.shape, dtype=np.uint8)
    assert is_cut_off(cut, FINE, noisy)  # of compression
    assert not is_cut_off(cut, FINE, np.zeros_like(labels))
    assert not is_cut_off(np.zeros_like(labels), FINE, narrow)


@pytest.mark.parametrize(("factor", "flag"), [(1, False), (3.25, True), (0.1, True)])
def test_a_heart_of_impossible_size(factor: float, flag: bool) -> None:
    """1 / 0.308 = 3.25: pixels read as mm; 0.1: mm read as cm."""
    labels, spacing = heart(85, 22), (FINE[0] * factor, FINE[1] * factor)
    found = flags(labels, spacing)
    assert found["size"] == flag
    assert found["plausible"] == (not flag)


# --- patients -----------------------------------------------------------------------------


def patient(**factors: float) -> dict:
    """Return four masks; the spacing of a view or phase is multiplied by its factor."""
    masks = {}
    for view, phase in itertools.product(("2CH", "4CH"), ("ED", "ES")):
        factor = factors.get(f"_{view}", 1) * factors.get(phase, 1)
        labels = heart(85 if phase == "ED" else 70, 22 if view == "2CH" else 25, 0, COARSE)
        masks[view, phase] = labels, (COARSE[0] * factor, COARSE[1] * factor)
    return masks


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ({}, set()),
        ({"_2CH": 1.3}, set()),  # recorded at another depth
        ({"_2CH": 1.5}, {"scales_differ"}),
        ({"_4CH": 1 / 2}, {"scales_differ"}),
        ({"ES": 1.1}, {"scales_differ"}),  # frames of one loop
        ({"_2CH": 3.25}, {"size", "scales_differ"}),
        ({"ED": 3.25, "ES": 3.25}, {"size"}),
    ],
)
def test_the_scale_of_a_patient(factors: dict[str, float], expected: set[str]) -> None:
    found = patient_flags(patient(**factors))
    assert {name for name in PATIENT_FLAGS if found[name]} == expected
    assert found["plausible"] == (not expected)


def test_fewer_and_larger_pixels_are_the_same_scale() -> None:
    masks = patient()
    labels, (row, column) = masks["2CH", "ED"]
    masks["2CH", "ED"] = labels[::2, ::2], (2 * row, 2 * column)
    assert patient_flags(masks)["plausible"]


def test_views_with_different_lengths_of_the_ventricle() -> None:
    """The headers agree, but one view has another scale."""
    masks = patient()
    masks["2CH", "ED"] = heart(50, 15, 0, COARSE), COARSE
    assert patient_flags(masks)["scales_differ"]
    masks["2CH", "ED"] = heart(70, 20, 0, COARSE), COARSE  # foreshortened
    assert not patient_flags(masks)["scales_differ"]


def test_swapped_phases() -> None:
    masks = patient()
    masks["2CH", "ED"], masks["2CH", "ES"] = masks["2CH", "ES"], masks["2CH", "ED"]
    found = patient_flags(masks)
    assert {name for name in PATIENT_FLAGS if found[name]} == {"phases"}
    assert not found["plausible"]


def test_one_cut_off_image_makes_the_volumes_implausible() -> None:
    masks = patient()
    labels, spacing = masks["4CH", "ES"]
    masks["4CH", "ES"] = labels[:, np.flatnonzero((labels == Camus.LV).any(0))[0] + 5 :], spacing
    found = patient_flags(masks)
    assert {name for name in PATIENT_FLAGS if found[name]} == {"edge"}
    assert not found["plausible"]


def test_volumes_are_checked() -> None:
    assert patient_flags(patient(), (120, 50))["plausible"]
    assert patient_flags(patient(), (120, np.nan))["plausible"]
    assert not patient_flags(patient(), (3512, 1400))["plausible"]


def test_summary_of_patients() -> None:
    flag_sets = (patient_flags(patient(_2CH=factor)) for factor in (1, 1, 1.5))
    rows = pd.DataFrame({f"{k}_predicted": v for k, v in one.items()} for one in flag_sets)
    counts = {"edge": 0, "size": 0, "scales_differ": 1, "phases": 0}
    assert summarise_volumes(rows) == {"n": 3, "plausible": 2, "flags": counts}
    none = summarise_volumes(rows.iloc[:0])
    assert none == {"n": 0, "plausible": 0, "flags": dict.fromkeys(PATIENT_FLAGS, 0)}


# --- summaries ----------------------------------------------------------------------------


def test_empty_label_map() -> None:
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
        {"case_id": f"{patient}{view}", "patient": patient, "view": view, "phase": "ED"}
        | found
        | {"scales_differ": False}
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
    assert summary["flags"] == dict.fromkeys(CASE_FLAGS, 0) | {"incomplete": 1}


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
    with_areas = [flags(labels, spacing, ranges[key]) for key, labels, spacing in validation]
    print(f"{len(found)} masks:\n{pd.DataFrame(found).sum()}")
    print(f"{len(with_areas)} with checked areas:\n{pd.DataFrame(with_areas).sum()}")
    assert np.mean([flag["plausible"] for flag in found]) > 0.98
    assert np.mean([flag["plausible"] for flag in with_areas]) > 0.95
