"""Overlapping frames are joined to the strip from which they were cut."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from heartseg.data.phantoms.recording import make_recording
from heartseg.data.strips.scrolling import (
    MIN_COMPARED,
    MIN_CORRELATION,
    MIN_OVERLAP,
    find_shift,
    join_frames,
    overlap_scores,
)
from tests.examples import real_data

WIDTH = 200


@pytest.fixture(scope="module")
def strip() -> np.ndarray:
    return make_recording(3, 1).strip


def cut(strip: np.ndarray, starts: list[int]) -> list[np.ndarray]:
    return [strip[:, start : start + WIDTH] for start in starts]


def test_irregular_steps_give_the_exact_strip(strip: np.ndarray) -> None:
    joined = join_frames(cut(strip, [0, 1, 100, 230, 230 + WIDTH - MIN_OVERLAP, 560, 700]))
    assert len(joined.strips) == 1
    assert np.array_equal(joined.strips[0], strip[:, : 700 + WIDTH])
    assert joined.notes == []


@pytest.mark.parametrize("overlap", range(MIN_OVERLAP))
def test_too_little_overlap_gives_no_shift(strip: np.ndarray, overlap: int) -> None:
    assert find_shift(*cut(strip, [300, 300 + WIDTH - overlap])) is None


def test_repeated_frames_are_skipped_and_counted(strip: np.ndarray) -> None:
    joined = join_frames(cut(strip, [0, 0, 0, 90, 90, 180]))
    assert np.array_equal(joined.strips[0], strip[:, : 180 + WIDTH])
    (note,) = joined.notes
    assert note.startswith("3 repeated")


def test_gap_begins_a_new_strip_and_is_noted(strip: np.ndarray) -> None:
    joined = join_frames(cut(strip, [0, 90, 600, 690, 1100]))
    expected = [strip[:, : 90 + WIDTH], strip[:, 600 : 690 + WIDTH], strip[:, 1100 : 1100 + WIDTH]]
    assert len(joined.strips) == 3
    for one, other in zip(joined.strips, expected, strict=True):
        assert np.array_equal(one, other)
    assert [note[:14] for note in joined.notes] == ["frames 2 and 3", "frames 4 and 5"]


def test_a_single_frame_is_a_strip(strip: np.ndarray) -> None:
    assert np.array_equal(join_frames([strip]).strips[0], strip)


def test_blank_frames_do_not_overlap_with_others(strip: np.ndarray) -> None:
    blank = np.zeros((len(strip), WIDTH), np.uint8)
    frame = strip[:, :WIDTH]
    assert find_shift(blank, frame) is None
    assert find_shift(frame, blank) is None
    assert find_shift(blank, blank) == 0


def test_similar_beats_do_not_overlap(strip: np.ndarray) -> None:
    """The walls are the same a beat later, but the speckle differs."""
    rng = np.random.default_rng(0)
    beat = strip[:, :50].astype(np.float64)
    noisy = [np.tile(beat, 4) * rng.rayleigh(0.8, (len(strip), WIDTH)) for _ in range(2)]
    first, second = (np.clip(frame, 0, 255).astype(np.uint8) for frame in noisy)
    assert find_shift(first, second) is None


@pytest.mark.parametrize("seed", range(3))
def test_scores_agree_with_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 256, (2, 12, 40), dtype=np.uint8)
    scores = overlap_scores(a, b)
    assert len(scores) == 40 - MIN_COMPARED + 1
    for shift in (0, 5, len(scores) - 1):
        one = np.diff(a.astype(float), axis=1)[:, shift:]
        other = np.diff(b.astype(float), axis=1)[:, : one.shape[1]]
        norm = np.linalg.norm(one) * np.linalg.norm(other)
        assert scores[shift] == pytest.approx((one * other).sum() / norm)


def jpeg(frame: np.ndarray, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, "JPEG", quality=quality)
    return np.array(Image.open(stream))


def test_overlap_of_real_frames() -> None:
    path = real_data("HEARTSEG_MMODE_ROOT") / "long_recording_unannotated.png"
    real = np.array(Image.open(path))[12:452, 12:7670]  # without its frame
    rng = np.random.default_rng(0)
    width, chance, compressed = 400, [], []
    for _ in range(12):
        start = int(rng.integers(0, 4000))
        shift = int(rng.integers(1, width - MIN_OVERLAP))
        frame, after, far = (
            real[:, at : at + width] for at in (start, start + shift, start + width + shift)
        )
        assert find_shift(frame, after) == shift
        assert find_shift(jpeg(frame, 75), jpeg(after, 75)) == shift
        assert find_shift(frame, far) is None
        chance.append(overlap_scores(frame, far).max())
        compressed.append(overlap_scores(jpeg(frame, 75), jpeg(after, 75)).max())
    assert max(chance) < MIN_CORRELATION - 0.1
    assert min(compressed) > MIN_CORRELATION + 0.1
