"""Tests of M-mode measurements on masks with known diameters and heart rate."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from heartseg.data.species import HUMAN, MOUSE
from heartseg.metrics.mmode import (
    diameter_trace,
    fractional_shortening,
    measure,
    teichholz_ef,
    teichholz_volume,
)
from tests.examples import real_data
from tests.metrics.shapes import MM_PER_ROW, S_PER_COLUMN, strip

RATES = dict(zip(("minimal_rate", "maximal_rate"), MOUSE.rates, strict=True))


def test_trace_is_the_longest_run_of_a_column() -> None:
    mask = np.zeros((10, 4), bool)
    mask[2:7, 0] = True
    mask[[1, 4, 5, 6, 9], 1] = True  # a run of three beside strays
    mask[:, 3] = True
    np.testing.assert_allclose(diameter_trace(mask, 0.1), [0.5, 0.3, np.nan, 1.0])


def test_a_hole_does_not_split_the_cavity() -> None:
    mask = strip(300)
    spoilt = mask.copy()
    spoilt[98:103, 100:110] = False
    np.testing.assert_array_equal(diameter_trace(spoilt, 0.1), diameter_trace(mask, 0.1))


@pytest.mark.parametrize("rate", [320.0, 450.0, 700.0])
def test_known_strip(rate: float) -> None:
    result = measure(strip(1500, rate), (MM_PER_ROW, S_PER_COLUMN), **RATES)
    assert result.lvidd_mm == pytest.approx(4.0, abs=0.1)  # two rows
    assert result.lvids_mm == pytest.approx(2.4, abs=0.1)
    assert result.fs_percent == pytest.approx(40.0, abs=2.0)
    assert result.hr_bpm == pytest.approx(rate, rel=0.02)


def test_a_heart_rate_needs_two_beats() -> None:
    spacing = (MM_PER_ROW, S_PER_COLUMN)  # a beat of 450 / min takes 133 columns
    two = measure(strip(240), spacing, **RATES)
    assert two.hr_bpm == pytest.approx(450, rel=0.05)
    one = measure(strip(120), spacing, **RATES)
    assert math.isnan(one.hr_bpm)
    assert one.lvidd_mm == pytest.approx(4.0, abs=0.1)
    assert one.lvids_mm == pytest.approx(2.4, abs=0.1)


def test_noise_on_the_walls_causes_no_beats() -> None:
    rng = np.random.default_rng(0)
    mask = strip(1200)
    noisy = np.stack([np.roll(m, rng.integers(-2, 3)) for m in mask.T], axis=1)
    jagged = noisy & np.roll(mask, 2, axis=0)
    result = measure(jagged, (MM_PER_ROW, S_PER_COLUMN), **RATES)
    assert result.hr_bpm == pytest.approx(450, rel=0.03)


def test_columns_without_cavity_are_left_out() -> None:
    mask = strip(1200)
    mask[:, 400:440] = False
    result = measure(mask, (MM_PER_ROW, S_PER_COLUMN), **RATES)
    assert result.lvidd_mm == pytest.approx(4.0, abs=0.1)
    assert result.lvids_mm == pytest.approx(2.4, abs=0.1)
    assert result.hr_bpm == pytest.approx(450, rel=0.03)


def test_no_beat_is_counted_across_a_gap() -> None:
    mask = strip(700)
    mask[:, 140:560] = False  # from one maximum to the next there: 90 / min
    result = measure(mask, (MM_PER_ROW, S_PER_COLUMN), minimal_rate=80, maximal_rate=900)
    assert math.isnan(result.hr_bpm)  # neither end shows two maxima or two minima
    assert result.lvidd_mm == pytest.approx(4.0, abs=0.1)


def test_a_missed_beat_is_not_a_slow_one() -> None:
    mask = strip(360)  # maxima at 13, 147, 280
    mask[:, 110:185] = strip(360)[:, [110]]  # hides the middle one
    mask &= strip(360, start=0.1) | (np.arange(360) < 110) | (np.arange(360) >= 185)
    result = measure(mask[:, :300], (MM_PER_ROW, S_PER_COLUMN), minimal_rate=300, maximal_rate=900)
    assert math.isnan(result.hr_bpm) or result.hr_bpm >= 300


def test_scale() -> None:
    mask = strip(1200)
    base = measure(mask, (MM_PER_ROW, S_PER_COLUMN), **RATES)
    scaled = measure(mask, (2 * MM_PER_ROW, S_PER_COLUMN * 0.75), **RATES)
    assert scaled.lvidd_mm == pytest.approx(2 * base.lvidd_mm, rel=0.02)
    assert scaled.fs_percent == pytest.approx(base.fs_percent, abs=1.0)
    assert scaled.hr_bpm == pytest.approx(base.hr_bpm / 0.75, rel=0.02)


def test_a_wall_that_does_not_move() -> None:
    mask = np.zeros((100, 400), bool)
    mask[20:60] = True
    result = measure(mask, (0.1, 0.001), **RATES)
    assert result.lvidd_mm == pytest.approx(4.0)
    assert result.fs_percent == pytest.approx(0.0, abs=1e-6)
    assert math.isnan(result.hr_bpm)


def test_empty_mask() -> None:
    result = measure(np.zeros((50, 60), bool), (0.1, 0.001), **RATES)
    assert all(
        math.isnan(value)
        for value in (result.lvidd_mm, result.lvids_mm, result.fs_percent, result.hr_bpm)
    )


def test_teichholz_in_both_units() -> None:
    assert teichholz_volume(50.0, HUMAN) == pytest.approx(7 / 7.4 * 125)  # 5 cm: 118.2 mL
    assert teichholz_volume(4.0, MOUSE) == pytest.approx(7 / 6.4 * 64)  # 4 mm: 70 uL
    assert HUMAN.volume_unit == "ml"
    assert MOUSE.volume_unit == "ul"
    assert teichholz_ef(50.0, 30.0, HUMAN) == pytest.approx(100 * (1 - 35.0 / 118.2432), abs=0.01)
    assert fractional_shortening(4.0, 2.4) == pytest.approx(40.0)


def test_volumes_and_ef_of_a_known_strip() -> None:
    found = measure(strip(1500), (MM_PER_ROW, S_PER_COLUMN), **RATES)
    assert found.edv == pytest.approx(70.0, rel=0.05)
    assert found.esv == pytest.approx(7 / 4.8 * 2.4**3, rel=0.1)
    assert found.ef_percent == pytest.approx(100 * (1 - 20.16 / 70), abs=2.5)
    human = measure(  # a beat of 250 columns of 4 ms
        strip(1500, rate=240),
        (10 * MM_PER_ROW, 0.004),
        minimal_rate=HUMAN.rates[0],
        maximal_rate=HUMAN.rates[1],
        species=HUMAN,
    )
    assert human.edv == pytest.approx(7 / 6.4 * 64, rel=0.05)  # 4 cm: the same number in mL
    assert human.hr_bpm == pytest.approx(60, rel=0.02)


def test_the_real_annotation_is_a_plausible_mouse_heart() -> None:
    """Its scale is Echo2Pheno's constant, 0.011525974 mm per row and 0.00083334 s per column."""
    root = real_data("HEARTSEG_MMODE_ROOT")
    mask = np.array(Image.open(root / "annotation_example_mask.png")) > 0
    found = measure(mask, (0.011525974, 0.00083334), **RATES)
    assert 3 < found.lvidd_mm < 6.5
    assert 1 < found.lvids_mm < 4
    assert 30 < found.fs_percent < 75
    assert 300 < found.hr_bpm < 600  # eight beats in 1.47 s
    assert found.hr_bpm == pytest.approx(60 * 8 / 1.37, rel=0.05)
