"""Size and place of windows, and agreement of image and mask."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from heartseg.config.data import Windows
from heartseg.config.params import Params
from heartseg.data.species import Scale
from heartseg.data.strips.cut_windows import beat_columns, cut_windows, window_size
from heartseg.data.strips.recordings import Strip

RATES = (200.0, 900.0)
BEAT = 100  # columns; 600 beats per minute at 1 ms per column


def scale(s_per_column: float) -> Scale:
    return Scale(0.01, s_per_column, ("by hand", "by hand"))


def make_strip(columns: int = 1000, rows: int = 500, swing: float = 30) -> Strip:
    """Return a noisy strip with an LV from row 150 to 250 whose walls move by `swing` in a sine."""
    phase = 2 * np.pi * np.arange(columns) / BEAT
    moved = swing * np.sin(phase)
    image = np.random.default_rng(0).integers(0, 256, (rows, columns), dtype=np.uint8)
    return Strip("a_s1", "a", "m", image, 150 + moved, 250 - moved, scale(0.001), False)


@pytest.fixture
def config(params: Params) -> Windows:
    return params.windows


@pytest.mark.parametrize(("length", "overlap"), [(1000, 0.5), (613, 0.0), (450, 0.9), (200, 0.5)])
def test_windows_cover_a_run_and_overlap_enough(length: int, overlap: float) -> None:
    strip = make_strip()
    wanted = np.zeros(1000, bool)
    wanted[:length] = True
    windows = cut_windows(strip, wanted, 200, overlap)
    starts = np.array([window.column for window in windows])
    assert starts[0] == 0
    assert starts[-1] == length - 200
    assert (np.diff(starts) <= np.ceil(200 * (1 - overlap))).all()
    assert len(set(starts.tolist())) == len(starts)
    # no more windows than the overlap requires
    assert len(windows) == max(np.ceil((length - 200) / (200 * (1 - overlap))), 0) + 1


def test_windows_show_wanted_columns_only() -> None:
    wanted = np.ones(1000, bool)
    wanted[[120, 600, 700]] = False
    windows = cut_windows(make_strip(), wanted, 100, 0.5)
    for window in windows:
        assert wanted[window.slices[1]].all()
    # the run 601 .. 699 is one column too short
    assert {window.column for window in windows} & set(range(550, 701)) == set()
    assert {0, 20, 121, 701, 900} <= {window.column for window in windows}


def test_image_and_mask_are_cut_at_one_place_around_the_heart() -> None:
    strip = make_strip()
    drift = np.linspace(0, 150, 1000)
    strip = replace(strip, upper=strip.upper + drift, lower=strip.lower + drift)
    windows = cut_windows(strip, np.ones(1000, bool), 250, 0.5)
    for window in windows:
        shown = slice(window.column, window.column + 250)
        part = slice(window.row, window.row + 250)
        assert np.array_equal(window.image, strip.image[part, shown])
        assert np.array_equal(window.mask > 0, strip.mask[part, shown])
        assert set(np.unique(window.mask)) == {0, 255}
        # the whole heart, as much room above as below
        assert (window.mask > 0).sum() == strip.mask[:, shown].sum()
        rows = np.flatnonzero(window.mask.any(axis=1))
        assert abs(rows[0] - (249 - rows[-1])) <= 2
    assert len({window.row for window in windows}) == len(windows)  # each follows the drift


def test_windows_stay_inside_the_strip() -> None:
    strip = make_strip(rows=300)
    for shift in (-149.0, 49.0):
        moved = replace(strip, upper=strip.upper + shift, lower=strip.lower + shift)
        for window in cut_windows(moved, np.ones(1000, bool), 280, 0.0):
            assert window.image.shape == window.mask.shape == (280, 280)


def test_without_traces_windows_are_in_the_middle() -> None:
    nowhere = np.full(1000, np.nan)
    strip = replace(make_strip(), upper=nowhere, lower=nowhere)
    windows = cut_windows(strip, np.ones(1000, bool), 300, 0.5)
    assert {window.row for window in windows} == {100}


def test_names_contain_the_first_column() -> None:
    first, *_, last = cut_windows(make_strip(), np.ones(1000, bool), 300, 0.5)
    assert (first.name, last.name) == ("a_s1_w000000", "a_s1_w000700")


def test_size_is_a_number_of_beats(config: Windows) -> None:
    strip = make_strip()
    size, why = window_size(strip, config, RATES)
    assert size == pytest.approx(3 * BEAT, abs=3)
    assert why.startswith("3 beats of ")
    double = config.model_copy(update={"beats": 4.0})
    assert window_size(strip, double, RATES)[0] == pytest.approx(4 * BEAT, abs=4)
    # twice the time per column: half as many columns to a beat of the same rate
    slow = replace(make_strip(), scale=scale(0.002))
    assert window_size(slow, config, (100.0, 450.0))[0] == pytest.approx(3 * BEAT, abs=3)


def test_size_has_limits(config: Windows) -> None:
    tall = make_strip()
    tall = replace(tall, lower=tall.lower + 180)  # from 120 to 460: 340 rows, more than 3 beats
    assert window_size(tall, config, RATES) == (int(np.ceil(340 * 1.2)), "the LV with its margin")
    flat = make_strip(rows=290)
    assert window_size(flat, config, RATES) == (290, "the whole depth")
    fixed = config.model_copy(update={"size": 128})
    assert window_size(tall, fixed, RATES) == (128, "as configured")
    short = make_strip(columns=150)
    size, why = window_size(short, config, RATES)
    assert size == 150
    assert "no beat" in why


@pytest.mark.parametrize("beat", [70, 131, 290])
def test_beats_are_found_in_masks_and_images(beat: int) -> None:
    rng = np.random.default_rng(beat)
    starts = np.cumsum(beat * (1 + 0.02 * rng.standard_normal(12)))
    columns = np.arange(int(starts[-2]))
    nearest = np.abs(columns[:, None] - starts).min(axis=1)  # a wave of one crest per beat
    wall = 60 + 25 * np.exp(-((nearest / (0.15 * beat)) ** 2)) + 8 * np.sin(columns / 400)
    depth = np.arange(160)[:, None]
    mask = (depth > wall) & (depth < 120)
    assert beat_columns(mask, 66, 300) == pytest.approx(beat, rel=0.04)
    speckle = rng.rayleigh(1, mask.shape)
    image = np.clip(60 * speckle * np.exp(-(((depth - wall) / 5) ** 2)) + 8 * speckle, 0, 255)
    assert beat_columns(image, 66, 300) == pytest.approx(beat, rel=0.04)


def test_noise_has_no_beat() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 900), dtype=np.uint8)
    assert beat_columns(noise, 60, 300) is None
    assert beat_columns(np.zeros((20, 900), np.uint8), 60, 300) is None
