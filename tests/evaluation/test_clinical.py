"""Clinical indices of a patient and their summary, on masks of known volumes."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from heartseg.config.params import Evaluate, Params
from heartseg.datasets.camus import Camus
from heartseg.evaluation.clinical import (
    SUMMARY_COLUMNS,
    clinical_indices,
    clinical_row,
    poorer_quality,
    summarise_clinical,
)
from heartseg.metrics.ejection import biplane_ef
from tests.metrics.shapes import FINE, heart

SIZES = {
    **{("2CH", "ED"): (84, 24), ("4CH", "ED"): (84, 26)},
    **{("2CH", "ES"): (72, 18), ("4CH", "ES"): (72, 20)},
}


@pytest.fixture
def settings(params: Params) -> Evaluate:
    return params.evaluate


def frames(shrink: float = 1.0) -> dict:
    """Predict a narrower cavity than the reference's in end-systole."""
    return {
        key: (heart(length, width * (shrink if key[1] == "ES" else 1)), heart(length, width), FINE)
        for key, (length, width) in SIZES.items()
    }


def half_ellipsoid(length: float, one: float, other: float) -> float:
    return 2 / 3 * np.pi * one * other * length / 1000


def test_indices_of_a_half_ellipsoid() -> None:
    found = clinical_indices({key: (heart(*size), FINE) for key, size in SIZES.items()})
    edv, esv = half_ellipsoid(84, 24, 26), half_ellipsoid(72, 18, 20)
    assert found["edv_ml"] == pytest.approx(edv, rel=0.01)
    assert found["sv_ml"] == pytest.approx(edv - esv, rel=0.02)
    assert found["ef_percent"] == pytest.approx(100 * (1 - esv / edv), abs=0.7)
    assert found["ef_percent_release"] == pytest.approx(100 * (1 - (18 * 20) / (24 * 26)), abs=0.7)
    assert found["edv_ml_area_length_2CH"] == pytest.approx(half_ellipsoid(84, 24, 24), rel=0.015)
    assert found["esv_ml_area_length_4CH"] == pytest.approx(half_ellipsoid(72, 20, 20), rel=0.015)
    expected = 100 * (1 - (18**2 * 72) / (24**2 * 84))
    assert found["ef_percent_area_length_2CH"] == pytest.approx(expected, abs=0.7)
    assert found["lv_length_mm_4CH_ES"] == pytest.approx(72, rel=0.01)
    assert found["lv_area_mm2_2CH_ED"] == pytest.approx(np.pi / 2 * 84 * 24, rel=0.01)
    wall = np.pi / 2 * (92 * 32 - 84 * 24)
    assert found["myo_area_mm2_2CH_ED"] == pytest.approx(wall, rel=0.01)
    assert found["la_area_mm2_4CH_ES"] == pytest.approx(30 * 40, rel=0.02)
    area_length = 8 * (30 * 36) * (30 * 40) / (3 * np.pi * 30) / 1000
    assert found["la_volume_ml"] == pytest.approx(area_length, rel=0.03)
    assert found["la_volume_disks_ml"] == pytest.approx(np.pi / 4 * 36 * 40 * 30 / 1000, rel=0.03)


def test_ef_alone_is_the_same() -> None:
    masks = {key: (heart(*size), FINE) for key, size in SIZES.items()}
    assert biplane_ef(masks) == clinical_indices(masks)["ef_percent"]
    labels, spacing = masks["4CH", "ES"]
    assert math.isnan(biplane_ef(masks | {("4CH", "ES"): (np.zeros_like(labels), spacing)}))
    del masks["4CH", "ES"]
    assert math.isnan(biplane_ef(masks))


def test_row_compares_prediction_with_reference() -> None:
    row = clinical_row(frames(shrink=0.8))
    assert row is not None
    assert row["edv_ml_reference"] == row["edv_ml_predicted"]
    assert row["esv_ml_predicted"] == pytest.approx(0.64 * row["esv_ml_reference"], rel=0.02)
    common = 1 - (18 * 20) / (24 * 26)
    assert row["ef_percent_release_reference"] == pytest.approx(100 * common, abs=1)
    assert row["ef_percent_release_predicted"] == pytest.approx(
        100 * (1 - 0.64 * (1 - common)), abs=1
    )


def test_row_without_a_view_or_without_lv() -> None:
    whole = frames()
    gap = {key: value for key, value in whole.items() if key != ("4CH", "ES")}
    assert clinical_row(gap) is None
    nothing = np.zeros_like(whole["4CH", "ES"][0])
    row = clinical_row(whole | {("4CH", "ES"): (nothing, *whole["4CH", "ES"][1:])})
    assert row is not None
    missing = (
        "esv_ml",
        "sv_ml",
        "ef_percent",
        "ef_percent_release",
        "esv_ml_area_length_4CH",
        "la_volume_ml",
    )
    assert all(math.isnan(row[f"{name}_predicted"]) for name in missing)
    assert row["edv_ml_predicted"] == row["edv_ml_reference"]  # end-diastole can still be measured
    assert (
        row["ef_percent_area_length_2CH_predicted"] == row["ef_percent_area_length_2CH_reference"]
    )
    assert row["ef_percent_reference"] > 40
    row = clinical_row(whole | {("2CH", "ED"): (nothing, *whole["2CH", "ED"][1:])})
    assert row is not None
    assert all(
        math.isnan(row[f"{name}_predicted"])
        for name in ("edv_ml", "ef_percent", "ef_percent_release")
    )
    assert row["esv_ml_predicted"] == row["esv_ml_reference"]


def test_flags_say_whether_volumes_can_be_believed() -> None:
    masks = {key: (heart(*size), FINE) for key, size in SIZES.items()}
    found = clinical_indices(masks)
    assert (found["edge"], found["size"], found["plausible"]) == (False, False, True)
    pixels_as_mm = {key: (labels, (1.0, 1.0)) for key, (labels, _) in masks.items()}
    found = clinical_indices(pixels_as_mm)
    assert found["edv_ml"] > 3000
    assert (found["size"], found["plausible"]) == (True, False)

    whole = frames()
    labels, reference, spacing = whole["4CH", "ES"]
    cut = np.flatnonzero((labels == Camus.LV).any(0))[0] + 30
    row = clinical_row(whole | {("4CH", "ES"): (labels[:, cut:], reference[:, cut:], spacing)})
    assert row is not None
    assert row["esv_ml_predicted"] < 0.9 * clinical_row(whole)["esv_ml_predicted"]
    assert row["edge_predicted"] is row["edge_reference"] is True
    assert row["plausible_predicted"] is False


def test_without_atrium_the_ventricle_is_still_measured() -> None:
    masks = {key: (heart(*size, atrium=False), FINE) for key, size in SIZES.items()}
    found = clinical_indices(masks)
    assert found["edv_ml"] == pytest.approx(half_ellipsoid(84, 24, 26), rel=0.02)
    assert math.isnan(found["la_area_mm2_2CH_ED"])
    assert math.isnan(found["la_volume_ml"])
    assert not (masks["2CH", "ED"][0] == Camus.LA).any()


def table(**columns: list) -> pd.DataFrame:
    known = {"patient": ["a", "b", "c"], "quality": ["Good", "Good/Poor", ""], **columns}
    return pd.DataFrame({name: known.get(name, [np.nan] * 3) for name in SUMMARY_COLUMNS})


def test_agreement_and_failures(settings: Evaluate) -> None:
    rows = table(ef_percent_reference=[50, 60, 70], ef_percent_predicted=[52, 59, np.nan])
    found = summarise_clinical(rows, settings)
    masks = found["ef"]["ef_vs_reference"]
    assert (masks["n"], masks["missing"]) == (2, 1)
    assert (masks["bias"], masks["mae"]) == (0.5, 1.5)
    assert math.isnan(masks["bias_low"])  # two patients allow no interval
    volumes = found["ef"]["edv_ml"]
    assert volumes["missing"] == 3
    assert math.isnan(volumes["mae_low"])
    assert set(found["ef"]) == {"ef_vs_reference", "edv_ml", "esv_ml", "ef_vs_recorded"}


def test_by_image_quality_the_poorer_view_counts(settings: Evaluate) -> None:
    rows = table(ef_percent_reference=[50, 60, 70], ef_percent_predicted=[52, 57, 70])
    found = summarise_clinical(rows, settings)["ef_by_quality"]
    assert {name: group["ef_vs_reference"]["mae"] for name, group in found.items()} == {
        "Good": 2,
        "Poor": 3,
    }
    assert poorer_quality("Medium/Good") == "Medium"
    assert poorer_quality("fair/Good") == "fair/Good"


def test_classes(settings: Evaluate) -> None:
    rows = table(
        ef_percent_reference=[28, 45, 70],
        ef_percent_predicted=[35, 42, np.nan],
        ef_percent_recorded=[29, 39, 60],
    )
    found = summarise_clinical(rows, settings)["ef_classes"]
    assert found["ef_vs_reference"]["30"]["false_above"] == 1
    assert found["ef_vs_reference"]["40"]["accuracy"] == 1.0
    assert found["ef_vs_reference"]["50"]["true_below"] == 2
    assert math.isnan(
        found["ef_vs_recorded"]["50"]["accuracy"]
    )  # nothing was measured by the cfg's method
    by_quality = summarise_clinical(rows.assign(quality=["Good", "Poor", "Good"]), settings)
    own = by_quality["ef_classes_by_quality"]
    assert {name: group["ef_vs_reference"]["30"]["accuracy"] for name, group in own.items()} == {
        "Good": 0.0,
        "Poor": 1.0,
    }


def test_cfg_is_compared_by_its_own_method(settings: Evaluate) -> None:
    both = {
        "ef_percent_predicted": [58.0, 58.0, 58.0],
        "ef_percent_release_predicted": [51.0, 51.0, 51.0],
    }
    release = table(ef_percent_recorded=[50, 50, np.nan], **both)
    cfg = summarise_clinical(release, settings)["ef"]["ef_vs_recorded"]
    assert (cfg["bias"], cfg["n"], cfg["missing"]) == (1.0, 2, 0)  # a patient without EF: no pair
    phantom = release.assign(edv_ml_true=100.0, edv_ml_predicted=104.0)
    found = summarise_clinical(phantom, settings)["ef"]
    assert found["ef_vs_recorded"]["bias"] == 8.0
    assert found["edv_true_ml"]["bias"] == 4.0


def test_no_patient_with_both_views(settings: Evaluate) -> None:
    found = summarise_clinical(pd.DataFrame(columns=SUMMARY_COLUMNS), settings)
    assert found["ef"]["ef_vs_reference"]["n"] == 0
    assert found["ef_by_quality"] == {}
