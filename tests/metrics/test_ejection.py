"""Tests of volumes and EF against ellipsoids of known volume, and the EF of the CAMUS release."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from heartseg.datasets.camus import Camus
from heartseg.evaluation.clinical import clinical_indices
from heartseg.metrics.agreement import agreement
from heartseg.metrics.ejection import (
    area_length_volume,
    biplane_volume,
    ejection_fraction,
    la_area,
    la_volume,
    long_axis_length,
    lv_area,
    myocardial_area,
    stroke_volume,
)
from tests.examples import camus_reference_masks, real_data
from tests.metrics.shapes import FINE, UNEQUAL, heart


def half_ellipsoid(length: float, a: float, b: float) -> float:
    return 2 / 3 * np.pi * a * b * length / 1000  # mL


@pytest.mark.parametrize("degrees", [0, 25, -40])
@pytest.mark.parametrize("spacing", [FINE, UNEQUAL, UNEQUAL[::-1]])
def test_volume_of_a_half_ellipsoid(degrees: float, spacing: tuple[float, float]) -> None:
    two, four = heart(85, 21, degrees, spacing), heart(85, 26, -degrees / 2, FINE)
    expected = half_ellipsoid(85, 21, 26)
    assert biplane_volume(two, spacing, four, FINE) == pytest.approx(expected, rel=0.01)
    assert long_axis_length(two, spacing) == pytest.approx(85, rel=0.01)


def test_default_length_is_that_of_the_longer_view() -> None:
    two, four = heart(70, 20), heart(85, 20)
    expected = half_ellipsoid(85, 20, 20)
    assert biplane_volume(two, FINE, four, FINE) == pytest.approx(expected, rel=0.01)


def test_volume_is_proportional_to_the_length() -> None:
    two, four = heart(80, 20), heart(80, 24)
    one = biplane_volume(two, FINE, four, FINE, length=40)
    assert one == pytest.approx(half_ellipsoid(40, 20, 24), rel=0.01)
    assert biplane_volume(two, FINE, four, FINE, length=80) == pytest.approx(2 * one)


def test_number_of_disks() -> None:
    # One disk has the diameters halfway, which are sqrt(3) / 2 of those at the base.
    two, four = heart(80, 20), heart(80, 24)
    expected = np.pi * 20 * 24 * 3 / 4 * 80 / 1000
    assert biplane_volume(two, FINE, four, FINE, disks=1) == pytest.approx(expected, rel=0.01)


def test_holes_and_islands_change_nothing() -> None:
    clean = heart(85, 22, 15)
    spoilt = clean.copy()
    rows, columns = np.nonzero(clean == Camus.LV)
    middle = int(rows.mean()), int(columns.mean())
    spoilt[middle[0] - 10 : middle[0] + 9, middle[1] - 8 : middle[1] + 8] = Camus.BACKGROUND
    spoilt[middle[0] + 20, middle[1]] = Camus.LA  # inside the cavity
    spoilt[5:40, 5:40] = Camus.LV
    spoilt[-30:-10, 5:30] = Camus.LV
    spoilt[60:70, 10:20] = Camus.LA
    assert long_axis_length(spoilt, FINE) == long_axis_length(clean, FINE)
    assert biplane_volume(spoilt, FINE, clean, FINE) == biplane_volume(clean, FINE, clean, FINE)


@pytest.mark.parametrize("degrees", [0, 20])
def test_gap_between_ventricle_and_atrium(degrees: float) -> None:
    labels = heart(85, 22, degrees)
    whole = long_axis_length(labels, FINE)
    below = np.roll(labels, 3, axis=0)  # removes 3 rows (0.9 mm) of the roof of the atrium
    labels[(labels == Camus.LA) & (below != Camus.LA)] = Camus.BACKGROUND
    assert long_axis_length(labels, FINE) == pytest.approx(whole, abs=1.0)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("degrees", [0, 25])
def test_without_atrium_the_wider_end_is_the_base(degrees: float, turns: int) -> None:
    labels = np.rot90(heart(85, 22, degrees, UNEQUAL, atrium=False), turns)
    spacing = UNEQUAL if turns % 2 == 0 else UNEQUAL[::-1]
    assert long_axis_length(labels, spacing) == pytest.approx(85, rel=0.015)
    expected = half_ellipsoid(85, 22, 22)
    assert biplane_volume(labels, spacing, labels, spacing) == pytest.approx(expected, rel=0.015)


@pytest.mark.parametrize("atrium", [False, True])
def test_whole_ellipsoid(atrium: bool) -> None:
    """The axis of an LV that is not a half ellipse also extends from end to end."""
    rows, columns = np.indices((400, 300)) * 0.3
    labels = np.zeros((400, 300), np.uint8)
    labels[((rows - 55) / 42) ** 2 + ((columns - 45) / 23) ** 2 <= 1] = Camus.LV
    if atrium:
        labels[(rows > 97) & (abs(columns - 45) < 15)] = Camus.LA
    assert long_axis_length(labels, FINE) == pytest.approx(84, rel=0.01)
    expected = 4 / 3 * np.pi * 42 * 23 * 23 / 1000
    assert biplane_volume(labels, FINE, labels, FINE) == pytest.approx(expected, rel=0.015)
    assert area_length_volume(labels, FINE) == pytest.approx(expected, rel=0.015)


def test_rotation_and_flips_change_nothing() -> None:
    labels = heart(85, 22, 15, UNEQUAL)
    length, volume = long_axis_length(labels, UNEQUAL), area_length_volume(labels, UNEQUAL)
    for turned in (labels[::-1], labels[:, ::-1], labels[::-1, ::-1]):
        assert long_axis_length(turned, UNEQUAL) == pytest.approx(length, rel=1e-3)
        assert area_length_volume(turned, UNEQUAL) == pytest.approx(volume, rel=1e-3)
        biplane = biplane_volume(turned, UNEQUAL, turned, UNEQUAL)
        assert biplane == pytest.approx(biplane_volume(labels, UNEQUAL, labels, UNEQUAL), rel=0.005)
    assert long_axis_length(labels.T, UNEQUAL[::-1]) == pytest.approx(length, rel=1e-3)


def test_pixels_twice_as_large_give_eight_times_the_volume() -> None:
    labels = heart(60, 18, 10)
    once, twice = (0.3, 0.3), (0.6, 0.6)
    assert long_axis_length(labels, twice) == pytest.approx(
        2 * long_axis_length(labels, once), 0.02
    )
    small, large = (biplane_volume(labels, s, labels, s) for s in (once, twice))
    assert large == pytest.approx(8 * small, rel=0.02)


def test_areas_and_volume_of_one_view() -> None:
    labels = heart(85, 21, 20, UNEQUAL)
    cavity = np.pi / 2 * 85 * 21
    assert lv_area(labels, UNEQUAL) == pytest.approx(cavity, rel=0.005)
    assert myocardial_area(labels, UNEQUAL) == pytest.approx(
        np.pi / 2 * 93 * 29 - cavity, rel=0.005
    )
    assert la_area(labels, UNEQUAL) == pytest.approx(30 * 42, rel=0.01)
    expected = half_ellipsoid(85, 21, 21)
    assert area_length_volume(labels, UNEQUAL) == pytest.approx(expected, rel=0.015)


def test_atrium() -> None:
    """Boxes of 30 mm height: 8 A B / (3 pi L), and as disks a * b * pi / 4 * height."""
    two, four = heart(85, 18), heart(85, 22, 30)
    area_length = 8 * (30 * 36) * (30 * 44) / (3 * np.pi * 30) / 1000
    assert la_volume(two, FINE, four, FINE) == pytest.approx(area_length, rel=0.03)
    disks = np.pi / 4 * 36 * 44 * 30 / 1000
    assert la_volume(two, FINE, four, FINE, method="disks") == pytest.approx(disks, rel=0.03)
    alone = np.where(two == Camus.LA, two, 0)
    with pytest.raises(ValueError, match="no LV adjacent to the LA"):
        la_volume(alone, FINE, four, FINE)
    with pytest.raises(ValueError, match="no LA"):
        la_area(heart(85, 18, atrium=False), FINE)
    with pytest.raises(ValueError, match="no MYO"):
        myocardial_area(alone, FINE)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"disks": 0}, "disks"), ({"length": 0.0}, "length"), ({"length": -5.0}, "length")],
)
def test_invalid_settings_are_rejected(changes: dict[str, float], reason: str) -> None:
    labels = heart(60, 18)
    with pytest.raises(ValueError, match=f"{reason} must be"):
        biplane_volume(labels, FINE, labels, FINE, **changes)


@pytest.mark.parametrize("spacing", [(0.0, 0.3), (0.3, -1.0), (np.nan, 0.3)])
def test_invalid_input_is_rejected(spacing: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="spacing"):
        long_axis_length(heart(60, 18), spacing)
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        long_axis_length(heart(60, 18)[None], FINE)


def test_ventricle_cut_by_the_image() -> None:
    labels = heart(85, 22)
    top = np.flatnonzero((labels == Camus.LV).any(1))[0]
    assert long_axis_length(labels[top + 10 :], FINE) == pytest.approx(82, abs=0.5)


def test_missing_ventricle_is_an_error() -> None:
    there, absent = heart(85, 22), np.zeros((50, 50), np.uint8)
    absent[10:20, 10:20] = Camus.LA
    with pytest.raises(ValueError, match="no LV"):
        long_axis_length(absent, FINE)
    with pytest.raises(ValueError, match="no LV"):
        biplane_volume(there, FINE, absent, FINE)


@pytest.mark.parametrize("atrium", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (3, 1)])
def test_a_few_pixels_are_not_a_ventricle(shape: tuple[int, int], atrium: bool) -> None:
    there, few = heart(85, 22), np.zeros((50, 50), np.uint8)
    few[20 : 20 + shape[0], 20 : 20 + shape[1]] = Camus.LV
    if atrium:
        few[20 + shape[0] : 40, 15:30] = Camus.LA
    for views in ((there, FINE, few, UNEQUAL), (few, UNEQUAL, there, FINE)):
        with pytest.raises(ValueError, match="too small to have a long axis"):
            biplane_volume(*views)
    with pytest.raises(ValueError, match="too small to have a long axis"):
        area_length_volume(few, FINE)


def test_a_base_of_a_single_point() -> None:
    labels = np.zeros((60, 60), np.uint8)
    labels[10:30, 10:30] = Camus.LV
    labels[30:40, 20] = Camus.LA  # one pixel, 4 mm wide; its neighbours do not belong to the base
    expected = 4 * np.hypot(29.5 - 9.5, 20 - 10)  # to the contour's point above the far corner
    assert long_axis_length(labels, (4.0, 4.0)) == pytest.approx(expected)


def test_ejection_fraction_with_own_and_common_axis() -> None:
    views = {("2CH", "ED"): (heart(90, 24), FINE), ("2CH", "ES"): (heart(75, 18), FINE)}
    views["4CH", "ED"] = heart(88, 26, spacing=UNEQUAL), UNEQUAL
    views["4CH", "ES"] = heart(76, 20, spacing=UNEQUAL), UNEQUAL
    edv, esv = (biplane_volume(*views["2CH", p], *views["4CH", p]) for p in ("ED", "ES"))
    own = 100 * (1 - (18 * 20 * 76) / (24 * 26 * 90))
    assert ejection_fraction(edv, esv) == pytest.approx(own, abs=0.7)
    longest = max(long_axis_length(*view) for view in views.values())
    edv, esv = (
        biplane_volume(*views["2CH", p], *views["4CH", p], length=longest) for p in ("ED", "ES")
    )
    assert ejection_fraction(edv, esv) == pytest.approx(100 * (1 - (18 * 20) / (24 * 26)), abs=0.7)
    assert clinical_indices(views)["ef_percent_release"] == ejection_fraction(edv, esv)


def test_ejection_fraction() -> None:
    assert ejection_fraction(120.0, 50.0) == pytest.approx(58.3333333)
    assert ejection_fraction(100.0, 110.0) == pytest.approx(-10.0)
    assert stroke_volume(120.0, 50.0) == 70.0
    with pytest.raises(ValueError, match="end-diastolic"):
        ejection_fraction(0.0, 10.0)
    with pytest.raises(ValueError, match="end-diastolic"):
        ejection_fraction(np.nan, 10.0)


@pytest.mark.slow
def test_reference_masks_give_the_release_ef() -> None:
    root = real_data("HEARTSEG_CAMUS_ROOT") / "database_nifti"
    known, common, own, without_atrium = [], [], [], []
    patients = itertools.groupby(camus_reference_masks(), key=lambda frame: frame[0])
    for number, (patient, frames) in enumerate(patients):
        views = {(view, phase): (labels, step) for _, view, phase, labels, step in frames}
        for labels, step in views.values() if number % 5 == 0 else ():
            bare = np.where(labels == Camus.LA, 0, labels)
            change = long_axis_length(bare, step) - long_axis_length(labels, step)
            without_atrium.append(abs(change))
        if len(views) < 4:
            continue
        info = (root / patient / "Info_2CH.cfg").read_text().splitlines()
        known.append(next(float(line.split(":")[1]) for line in info if line.startswith("EF")))
        found = clinical_indices(views)
        common.append(found["ef_percent_release"])
        own.append(found["ef_percent"])
    assert len(known) > 100
    release, own_axis = agreement(known, common), agreement(known, own)
    changes = np.mean(without_atrium), np.quantile(without_atrium, 0.95)
    print(f"common disk height: {release}\nown long axes: {own_axis}\nwithout atrium: {changes} mm")
    assert release["mae"] <= 1.0
    assert release["r"] >= 0.98
    assert own_axis["r"] >= 0.95  # an offset of 8 points: the axis' own shortening counts
    assert own_axis["bias"] == pytest.approx(8.0, abs=0.5)
    assert changes[0] < 1.0
