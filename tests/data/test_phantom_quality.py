"""Degraded M-mode phantoms: effects of grades, and labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from heartseg.config.data import MmodePhantoms
from heartseg.config.params import Params
from heartseg.data.phantoms.degrade import DEGRADATIONS, degrade, quality_of
from heartseg.data.phantoms.mmode import AnimalStrip, make_strip
from heartseg.data.phantoms.mmode_quality import write_quality

TINY = {"animals": 2, "windows_per_animal": 4, "window": 96, "seed": 3}


@pytest.fixture(scope="module")
def strip() -> AnimalStrip:
    return make_strip(MmodePhantoms.model_validate(TINY), 1)


def worse(strip: AnimalStrip, kind: str, grade: int, seed: int = 0) -> np.ndarray:
    walls = (strip.motion.upper, strip.motion.lower)
    rng = np.random.default_rng(seed)
    return degrade(rng, strip.image, walls, strip.truth.mm_per_row, kind, grade)


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_higher_grade_degrades_more(strip: AnimalStrip, kind: str) -> None:
    left = []
    for grade in (1, 2, 3, 4):
        pairs = [np.corrcoef(strip.image.ravel(), worse(strip, kind, grade, s).ravel())[0, 1]
                 for s in range(6)]  # fmt: skip
        left.append(np.mean(pairs))
    assert left == sorted(left, reverse=True)
    assert left[0] > 0.6 > left[3]
    np.testing.assert_array_equal(worse(strip, kind, 3), worse(strip, kind, 3))


def test_effects_of_degradations(strip: AnimalStrip) -> None:
    image = strip.image.astype(int)
    dark = worse(strip, "shadow", 4).mean(axis=0) < 0.25 * image.mean(axis=0)
    assert 0.65 < dark.mean() < 0.9
    assert (worse(strip, "low_gain", 2) <= image).all()
    assert (worse(strip, "saturation", 2) >= image).all()
    inside = np.zeros(image.shape, bool)
    rows = (np.arange(len(image))[:, None] + 0.5) * strip.truth.mm_per_row
    middle = (strip.motion.upper + strip.motion.lower) / 2
    inside[np.abs(rows - middle) < 0.2] = True
    np.testing.assert_array_equal(worse(strip, "wall_loss", 4)[inside], image[inside])
    moved = worse(strip, "motion", 3)
    assert all(set(now) <= set(then) for now, then in zip(moved.T, image.T, strict=True))


def test_grade_determines_label() -> None:
    assert [quality_of(grade) for grade in range(5)] == ["good", "good", "good", "bad", "bad"]


def test_windows_and_strips_are_written(tmp_path: Path, params: Params) -> None:
    write_quality(tmp_path, MmodePhantoms.model_validate(TINY), workers=1)
    table = pd.read_csv(tmp_path / "windows.csv", keep_default_na=False)
    assert sorted(f"{name}.png" for name in table["name"]) == sorted(
        path.name for path in (tmp_path / "img").iterdir()
    )
    assert len(table) == 8
    assert set(table["animal"]) == {"animal01", "animal02"}
    labelled = table[table["quality"] != ""]
    assert (labelled["quality"] == labelled["grade"].map(quality_of)).all()
    spans = pd.read_csv(tmp_path / "strips/degraded.csv")
    truth = pd.read_csv(tmp_path / "strips/recordings.csv")
    for span, s_per_column in zip(spans.itertuples(), truth["s_per_column"], strict=True):
        original = make_strip(MmodePhantoms.model_validate(TINY), span.Index + 1).image
        found = np.array(Image.open(tmp_path / f"strips/{span.recording}.png"))
        changed = np.flatnonzero((found != original).any(axis=0)) * s_per_column
        assert changed.min() == pytest.approx(span.start_s, abs=25 * s_per_column)
        assert span.start_s - 1e-4 <= changed.min() < changed.max() <= span.end_s
        assert span.grade >= 3
