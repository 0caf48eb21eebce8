"""Biplane Simpson against ellipsoids of known volume, and against the real release's EF."""

from __future__ import annotations

import numpy as np
import pytest

from heartseg.data.labels import Camus
from heartseg.metrics.agreement import agreement
from heartseg.metrics.ejection import (
    biplane_volume,
    ejection_fraction,
    long_axis_length,
    release_ejection_fraction,
)
from tests.examples import real_data
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


def test_without_length_the_longer_view_counts() -> None:
    two, four = heart(70, 20), heart(85, 20)
    expected = half_ellipsoid(85, 20, 20)
    assert biplane_volume(two, FINE, four, FINE) == pytest.approx(expected, rel=0.01)


def test_volume_is_proportional_to_a_given_length() -> None:
    two, four = heart(80, 20), heart(80, 24)
    one = biplane_volume(two, FINE, four, FINE, length=40)
    assert one == pytest.approx(half_ellipsoid(40, 20, 24), rel=0.01)
    assert biplane_volume(two, FINE, four, FINE, length=80) == pytest.approx(2 * one)


def test_number_of_disks() -> None:
    # One disk: the diameters halfway, sqrt(3) / 2 of those at the base, over the whole length.
    two, four = heart(80, 20), heart(80, 24)
    expected = np.pi * 20 * 24 * 3 / 4 * 80 / 1000
    assert biplane_volume(two, FINE, four, FINE, disks=1) == pytest.approx(expected, rel=0.01)


def test_holes_and_islands_move_nothing() -> None:
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
def test_seam_between_ventricle_and_atrium(degrees: float) -> None:
    labels = heart(85, 22, degrees)
    whole = long_axis_length(labels, FINE)
    below = np.roll(labels, 3, axis=0)  # shaves 3 rows (0.9 mm) off the atrium's roof
    labels[(labels == Camus.LA) & (below != Camus.LA)] = Camus.BACKGROUND
    assert long_axis_length(labels, FINE) == pytest.approx(whole, abs=1.0)


@pytest.mark.parametrize("degrees", [0, 25])
def test_without_atrium_the_lower_end_is_the_base(degrees: float) -> None:
    labels = heart(85, 22, degrees, UNEQUAL, atrium=False)
    assert long_axis_length(labels, UNEQUAL) == pytest.approx(85, rel=0.05)
    expected = half_ellipsoid(85, 22, 22)
    assert biplane_volume(labels, UNEQUAL, labels, UNEQUAL) == pytest.approx(expected, rel=0.05)


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
def test_a_few_pixels_are_no_ventricle(shape: tuple[int, int], atrium: bool) -> None:
    there, few = heart(85, 22), np.zeros((50, 50), np.uint8)
    few[20 : 20 + shape[0], 20 : 20 + shape[1]] = Camus.LV
    if atrium:
        few[20 + shape[0] : 40, 15:30] = Camus.LA
    for views in ((there, FINE, few, UNEQUAL), (few, UNEQUAL, there, FINE)):
        with pytest.raises(ValueError, match="too small to have a long axis"):
            biplane_volume(*views)
    with pytest.raises(ValueError, match="too small to have a long axis"):
        release_ejection_fraction(there, few, FINE, there, there, FINE)


def test_a_base_of_a_single_point() -> None:
    labels = np.zeros((60, 60), np.uint8)
    labels[10:30, 10:30] = Camus.LV
    labels[30:40, 20] = Camus.LA  # one pixel of 4 mm wide: its neighbours are no part of the base
    expected = 4 * np.hypot(29.5 - 9.5, 20 - 10)  # to the contour's point above the far corner
    assert long_axis_length(labels, (4.0, 4.0)) == pytest.approx(expected)


def test_two_ways_to_the_ejection_fraction() -> None:
    ed_2ch, ed_4ch = heart(90, 24), heart(88, 26, spacing=UNEQUAL)
    es_2ch, es_4ch = heart(75, 18), heart(76, 20, spacing=UNEQUAL)
    edv = biplane_volume(ed_2ch, FINE, ed_4ch, UNEQUAL)
    esv = biplane_volume(es_2ch, FINE, es_4ch, UNEQUAL)
    own = 100 * (1 - (18 * 20 * 76) / (24 * 26 * 90))
    assert ejection_fraction(edv, esv) == pytest.approx(own, abs=0.7)
    release = release_ejection_fraction(ed_2ch, es_2ch, FINE, ed_4ch, es_4ch, UNEQUAL)
    assert release == pytest.approx(100 * (1 - (18 * 20) / (24 * 26)), abs=0.7)


def test_ejection_fraction() -> None:
    assert ejection_fraction(120.0, 50.0) == pytest.approx(58.3333333)
    assert ejection_fraction(100.0, 110.0) == pytest.approx(-10.0)
    with pytest.raises(ValueError, match="end-diastolic"):
        ejection_fraction(0.0, 10.0)
    with pytest.raises(ValueError, match="end-diastolic"):
        ejection_fraction(np.nan, 10.0)


@pytest.mark.slow
def test_reference_masks_give_the_release_ef() -> None:
    import nibabel

    root = real_data("HEARTSEG_CAMUS_ROOT") / "database_nifti"
    known, common, own = [], [], []
    for folder in sorted(root.iterdir()):
        frames = []
        for name in ("2CH_ED", "2CH_ES", "4CH_ED", "4CH_ES"):
            path = folder / f"{folder.name}_{name}_gt.nii.gz"
            if path.exists():
                image = nibabel.load(path)
                columns, rows = (float(step) for step in image.header.get_zooms()[:2])
                frames.append((np.asarray(image.dataobj).T.astype(np.uint8), (rows, columns)))
        if len(frames) < 4:
            continue
        ed_2ch, es_2ch, ed_4ch, es_4ch = frames
        info = (folder / "Info_2CH.cfg").read_text().splitlines()
        known.append(next(float(line.split(":")[1]) for line in info if line.startswith("EF")))
        common.append(release_ejection_fraction(ed_2ch[0], *es_2ch, ed_4ch[0], *es_4ch))
        edv, esv = biplane_volume(*ed_2ch, *ed_4ch), biplane_volume(*es_2ch, *es_4ch)
        own.append(ejection_fraction(edv, esv))
    assert len(known) > 100
    release, own_axis = agreement(known, common), agreement(known, own)
    print(f"common disk height: {release}\nown long axes: {own_axis}")
    assert release["mae"] <= 1.0
    assert release["r"] >= 0.98
    assert own_axis["r"] >= 0.95  # an offset of 8 points: the axis' own shortening counts
    assert own_axis["bias"] == pytest.approx(8.3, abs=0.5)
