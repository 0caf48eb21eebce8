"""Tests of beats in phantom strips with known end-diastoles, end-systoles and intervals."""

from __future__ import annotations

import numpy as np
import pytest

from heartseg.data.phantoms.strip import Motion, make_motion
from heartseg.data.species import MOUSE
from heartseg.metrics.beats import Beat, rmssd_ms, sdnn_ms
from heartseg.metrics.mmode import measure, summarise_beats, trace_beats
from tests.metrics.shapes import MM_PER_ROW, S_PER_COLUMN, strip

SPACING = MM, S = 0.03, 0.00083334
RATES = MOUSE.rates
LIMITS = {"minimal_rate": RATES[0], "maximal_rate": RATES[1]}


def phantom(rate: float, irregularity: float, beats: int = 14) -> tuple[np.ndarray, Motion]:
    """Return the mask of a strip with about this number of beats, and its true motion."""
    beat = 60 / rate / S
    rng = np.random.default_rng(int(rate))
    motion = make_motion(rng, int(beats * beat), beat, 9.3, irregularity)
    rows = (np.arange(310)[:, None] + 0.5) * MM
    return (rows >= motion.upper) & (rows < motion.lower), motion


def inside(events: np.ndarray, columns: int) -> np.ndarray:
    return (events > 0) & (events < columns)


@pytest.mark.parametrize("irregularity", [0.02, 0.08])
@pytest.mark.parametrize("rate", [250, 350, 450, 550, 650, 800])
def test_known_values_at_any_rate(rate: float, irregularity: float) -> None:
    mask, motion = phantom(rate, irregularity)
    ed, es = (inside(events, mask.shape[1]) for events in (motion.diastoles, motion.systoles))
    walls, pieces = trace_beats(mask, SPACING, *RATES)
    found = summarise_beats(walls, pieces, 60 / RATES[1] / S, MOUSE)
    assert found.lvidd_mm == pytest.approx(np.median(motion.diastolic[ed]), abs=0.05)
    assert found.lvids_mm == pytest.approx(np.median(motion.systolic[es]), abs=0.05)
    # Over whole beats, all landmarks give the mean rate.
    measured = [b.interval_s for b in pieces[0] if np.isfinite(b.interval_s)]
    truth = np.diff(motion.diastoles[ed]) * S
    assert 60 / np.mean(measured) == pytest.approx(60 / truth.mean(), rel=0.01 + irregularity / 4)
    assert found.hr_bpm == pytest.approx(60 / np.median(truth), rel=0.01 + irregularity / 2)
    # Half contractions of each beat; only the first and the last beat may be incomplete.
    half = (motion.diastoles + motion.systoles)[ed & es] / 2
    truth = np.diff(half) * S
    assert len(truth) - 1 <= len(measured) <= len(truth) + 1
    truth = truth[-len(measured) :] if len(truth) >= len(measured) else truth
    assert found.hr_bpm == pytest.approx(60 / np.median(truth), rel=0.01)
    assert found.sdnn_ms == pytest.approx(1000 * truth.std(ddof=1), rel=0.05, abs=0.6)
    rmssd = 1000 * np.sqrt(np.mean(np.diff(truth) ** 2))
    assert found.rmssd_ms == pytest.approx(rmssd, rel=0.05, abs=0.8)


@pytest.mark.parametrize("rate", [250, 450, 800])
def test_every_beat_is_found_at_its_time_and_with_its_diameters(rate: float) -> None:
    mask, motion = phantom(rate, 0.08)
    _, pieces = trace_beats(mask, SPACING, *RATES)
    (beats,) = pieces
    ed, es = (inside(events, mask.shape[1]) for events in (motion.diastoles, motion.systoles))
    whole = [b for b in beats if np.isfinite(b.lvidd_mm) and np.isfinite(b.lvids_mm)]
    for beat in whole:
        k = np.argmin(abs(motion.systoles * S - beat.systole_s))
        assert beat.systole_s == pytest.approx(motion.systoles[k] * S, abs=0.005)
        half = (motion.diastoles[k] + motion.systoles[k]) / 2 * S
        assert beat.contraction_s == pytest.approx(half, abs=0.003)
        assert beat.lvidd_mm == pytest.approx(motion.diastolic[k], abs=0.08)
        assert beat.lvids_mm == pytest.approx(motion.systolic[k], abs=0.08)
    assert abs(len(whole) - min(ed.sum(), es.sum())) <= 1  # one at an end may be incomplete


def test_a_premature_beat_and_its_pause() -> None:
    """Intervals are 130 ms, except for one of 60 ms (1000 beats/min) and then 200 ms."""
    intervals = np.array([130, 130, 130, 60, 200, 130, 130])
    starts = np.concatenate([[0], np.cumsum(intervals)])
    time = np.arange(0, starts[-1])
    k = np.searchsorted(starts, time, side="right") - 1
    since, contraction = time - starts[k], 40
    down, up = since / contraction, (since - contraction) / (intervals[k] - contraction)
    swing = np.where(down < 1, np.cos(np.pi * down), -np.cos(np.pi * up))
    half = (3.2 + 0.8 * swing) / MM_PER_ROW / 2
    mask = abs(np.arange(200)[:, None] - 100) <= half
    _, ((*beats,),) = trace_beats(mask, (MM_PER_ROW, S_PER_COLUMN), *RATES)
    found = [1000 * beat.interval_s for beat in beats if np.isfinite(beat.interval_s)]
    assert min(found) == pytest.approx(60, abs=4)
    assert max(found) == pytest.approx(200, abs=4)
    assert measure(mask, (MM_PER_ROW, S_PER_COLUMN), minimal_rate=200,
                   maximal_rate=900).hr_bpm == pytest.approx(60 / 0.13, rel=0.03)  # fmt: skip


def test_variability() -> None:
    def beats(*intervals: float) -> list[Beat]:
        return [Beat(0, 0, 0, 4, 2, interval) for interval in intervals]

    one = [beats(0.100, 0.110, 0.090)]
    assert sdnn_ms(one) == pytest.approx(10.0)
    assert rmssd_ms(one) == pytest.approx(np.sqrt((10**2 + 20**2) / 2))
    apart = [beats(0.100, np.nan), beats(0.110, np.nan)]
    assert sdnn_ms(apart) == pytest.approx(np.sqrt(50))
    assert np.isnan(rmssd_ms(apart))  # no two successive intervals
    assert np.isnan(rmssd_ms([beats(0.1, np.nan, 0.1)]))
    assert np.isnan(sdnn_ms([beats(0.1)]))
    assert np.isnan(sdnn_ms([]))
    assert np.isnan(rmssd_ms([]))


def test_no_interval_spans_a_gap_or_a_bad_span() -> None:
    mask, motion = phantom(450, 0.02)
    gap = slice(500, 700)  # two of the fourteen beats
    holed, bad = mask.copy(), np.zeros(mask.shape[1], bool)
    holed[:, gap] = False
    bad[gap] = True
    for result in (trace_beats(holed, SPACING, *RATES), trace_beats(mask, SPACING, *RATES, bad)):
        walls, pieces = result
        assert [piece[0] for piece in walls.pieces] == [0, 700]
        events = [b.systole_s for beats in pieces for b in beats if np.isfinite(b.systole_s)]
        assert not any(500 * S <= event < 700 * S for event in events)
        values = summarise_beats(walls, pieces, 60 / RATES[1] / S, MOUSE)
        ed = inside(motion.diastoles, mask.shape[1])
        assert values.lvidd_mm == pytest.approx(np.median(motion.diastolic[ed]), abs=0.06)
        assert values.hr_bpm == pytest.approx(450, rel=0.04)
        assert values.sdnn_ms < 8  # an interval across the gap would have 300 ms


def test_wrong_columns_do_not_change_the_values() -> None:
    mask, _ = phantom(500, 0.02)
    clean = measure(mask, SPACING, minimal_rate=RATES[0], maximal_rate=RATES[1])
    rng = np.random.default_rng(0)
    for column in rng.choice(mask.shape[1], 60, replace=False):
        fault = rng.integers(4)
        if fault == 0:
            mask[:, column] = False
        elif fault == 1:
            mask[:60, column] = True
        elif fault == 2:
            mask[240:300, column] = True
        else:
            rows = np.flatnonzero(mask[:, column])
            mask[rows[len(rows) // 8] : rows[-len(rows) // 8], column] = False
    found = measure(mask, SPACING, minimal_rate=RATES[0], maximal_rate=RATES[1])
    assert found.lvidd_mm == pytest.approx(clean.lvidd_mm, abs=0.05)
    assert found.lvids_mm == pytest.approx(clean.lvids_mm, abs=0.05)
    assert found.hr_bpm == pytest.approx(clean.hr_bpm, rel=0.01)
    assert found.sdnn_ms == pytest.approx(clean.sdnn_ms, abs=1.0)


def test_no_heart_half_a_beat_and_one_column() -> None:
    spacing = (MM_PER_ROW, S_PER_COLUMN)
    for mask in (np.zeros((200, 400), bool), strip(1), strip(0)):
        walls, pieces = trace_beats(mask, spacing, *RATES)
        found = summarise_beats(walls, pieces, 60 / RATES[1] / S_PER_COLUMN, MOUSE)
        assert [b for beats in pieces for b in beats] == []
        assert np.isnan([found.lvidd_mm, found.fs_percent, found.hr_bpm, found.ef_percent]).all()
    half = measure(strip(67, start=0.0), spacing, minimal_rate=200, maximal_rate=900)
    assert half.lvidd_mm == pytest.approx(4.0, abs=0.1)
    assert half.lvids_mm == pytest.approx(2.4, abs=0.1)
    assert np.isnan(half.hr_bpm)


@pytest.mark.parametrize("jitter", [2, 5, 13, 20])
@pytest.mark.parametrize("seed", range(3))
def test_noisy_walls_give_the_rate_or_none(jitter: float, seed: int) -> None:
    """Extrema due to noise of some pixels are not beats."""
    mask, _ = phantom(500, 0.02)
    rng = np.random.default_rng(seed)
    rows = np.arange(mask.shape[0])[:, None]
    upper = mask.argmax(axis=0) + rng.normal(0, jitter, mask.shape[1])
    lower = len(mask) - mask[::-1].argmax(axis=0) + rng.normal(0, jitter, mask.shape[1])
    found = measure((rows >= upper) & (rows < lower), SPACING, **LIMITS)
    assert np.isnan(found.hr_bpm) or found.hr_bpm == pytest.approx(500, rel=0.05)
