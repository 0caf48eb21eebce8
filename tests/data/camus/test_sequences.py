"""Half sequences: resampling over normalised time, and order of the frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import interp1d

from heartseg.config.data import CamusDataset
from heartseg.config.params import Params
from heartseg.data.camus.sequences import frame_rate
from heartseg.data.frames import resample_frames
from heartseg.data.images import read_images
from heartseg.data.prepared import decode_image, decode_png, read_metadata, read_prepared
from heartseg.errors import BadFilesError, InputError
from heartseg.prepare import prepare
from tests.data.raw import DEPTH, INFO, SPACING, WIDTH, echo, write_nifti, write_release

FRAMES = 18  # as INFO says


def constant(*values: int) -> np.ndarray:
    """Return frames (T, 2, 3) of one gray value each."""
    return np.array(values, np.uint8)[:, None, None] * np.ones((2, 3), np.uint8)


def test_resampling_of_known_values() -> None:
    def levels(frames: np.ndarray, count: int) -> list[int]:
        resampled = resample_frames(frames, count)
        assert resampled.shape == (count, 2, 3)
        assert resampled.dtype == np.uint8
        return resampled[:, 0, 0].tolist()

    assert levels(constant(0, 100, 200), 5) == [0, 50, 100, 150, 200]
    assert levels(constant(10, 20, 30, 40, 50), 3) == [10, 30, 50]
    assert levels(constant(0, 90, 0, 60), 3) == [0, 45, 60]  # halfway between frames 2 and 3
    assert levels(constant(200, 10), 2) == [200, 10]
    # Ten frames as 20: the k-th at k * 9 / 19 frames, here 10 gray levels each.
    steps = levels(constant(*range(0, 100, 10)), 20)
    assert steps == [round(k * 90 / 19) for k in range(20)]


@given(st.integers(2, 32), st.integers(2, 24), st.integers(0, 2**31 - 1))
def test_resampling_is_linear_interpolation_over_normalised_time(
    frames: int, count: int, seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, 3, 2), dtype=np.uint8)
    resampled = resample_frames(pixels, count)
    expected = interp1d(np.linspace(0, 1, frames), pixels, axis=0)(np.linspace(0, 1, count))
    assert np.abs(resampled - expected).max() <= 0.5 + 1e-6
    assert (resampled[0] == pixels[0]).all()
    assert (resampled[-1] == pixels[-1]).all()
    if frames == count:
        assert (resampled == pixels).all()


@pytest.mark.parametrize(("frames", "count"), [(1, 20), (0, 20), (5, 1)])
def test_resampling_needs_two_frames(frames: int, count: int) -> None:
    with pytest.raises(ValueError, match="cannot resample"):
        resample_frames(np.zeros((frames, 4, 4), np.uint8), count)


# --- from a release to the prepared dataset -----------------------------------------------


def moving(seed: int = 0) -> np.ndarray:
    """Return frames (T, H, W) without symmetry, of increasing brightness."""
    texture = echo(seed)[0] // 4
    return np.stack([texture + 6 * step for step in range(FRAMES)]).astype(np.uint8)


def sequence_path(source: Path, patient: int, view: str) -> Path:
    name = f"patient{patient:04d}"
    return source / "database_nifti" / name / f"{name}_{view}_half_sequence.nii.gz"


@pytest.fixture
def config(params: Params, tmp_path: Path) -> CamusDataset:
    """Write four patients, of which patient0003 has no sequence of 2CH and patient0004 has none."""
    source = write_release(tmp_path / "camus")
    for patient, views in {1: ("2CH", "4CH"), 2: ("2CH", "4CH"), 3: ("4CH",)}.items():
        for view in views:
            write_nifti(sequence_path(source, patient, view), moving(patient))
    return params.datasets.camus.model_copy(update={"source": source, "frames": 20})


def test_time_is_the_last_axis_on_disk_and_the_first_in_memory(config: CamusDataset) -> None:
    sequence = read_images(sequence_path(config.source, 1, "2CH"))
    assert sequence.frames.shape == (FRAMES, DEPTH, WIDTH)
    assert (sequence.frames == moving(1)).all()
    assert sequence.spacing == pytest.approx(SPACING)


def test_each_sequence_gives_one_sample_per_phase(config: CamusDataset, tmp_path: Path) -> None:
    path = tmp_path / "camus.parquet"
    facts = prepare("camus", config, path, skip_bad=False, threads=2)
    table = read_prepared(path).set_index("case_id")
    assert len(table) == 10  # 5 sequences
    assert set(table.loc["patient0001_2CH_ED", ["height", "width"]]) == {DEPTH, WIDTH}
    forward = resample_frames(moving(1), 20)
    for phase, expected in {"ED": forward, "ES": forward[::-1]}.items():
        row = table.loc[f"patient0001_2CH_{phase}"]
        stack = decode_image(row["image"], row["height"])
        assert stack.shape == (20, DEPTH, WIDTH)
        assert (stack == expected).all()
        assert (decode_png(row["mask"]) == echo(len(phase) + (phase == "ES"))[1]).all()
        assert row["reference_ef"] == 54
    assert facts["frames"] == read_metadata(path)["frames"] == 20


def test_views_without_sequence_are_noted_and_skipped(config: CamusDataset, tmp_path: Path) -> None:
    facts = prepare("camus", config, tmp_path / "d.parquet", skip_bad=False, threads=1)
    assert facts["notes"][:3] == [
        "patient0003: no half sequence of 2CH, so this view is not used",
        "patient0004: no half sequence of 2CH, 4CH, so this view is not used",
        "2 of 4 patients have half sequences of all their views",
    ]
    assert facts["notes"][3].startswith("test is empty")
    assert len(facts["notes"]) == 4
    assert facts["cases"] == {"train": 8, "val": 2, "test": 0}
    assert facts["skipped"] == []


def test_a_release_without_sequences_is_refused(config: CamusDataset, tmp_path: Path) -> None:
    for path in config.source.rglob("*_half_sequence*"):
        path.unlink()
    with pytest.raises(InputError, match=r"no file .*half_sequence.*datasets\.camus\.frames to 1"):
        prepare("camus", config, tmp_path / "d.parquet", skip_bad=False, threads=1)
    assert not (tmp_path / "d.parquet").exists()


def test_ed_may_be_the_last_frame(config: CamusDataset, tmp_path: Path) -> None:
    """This is so for two patients of the release. Frames before ED or after ES are not used."""
    text = INFO.replace("ED: 1\nES: 18", "ED: 17\nES: 3")
    (config.source / "database_nifti/patient0001/Info_2CH.cfg").write_text(text)
    prepare("camus", config, tmp_path / "d.parquet", skip_bad=False, threads=1)
    table = read_prepared(tmp_path / "d.parquet").set_index("case_id")
    stacks = {p: decode_image(table.loc[f"patient0001_2CH_{p}", "image"], DEPTH) for p in
              ("ED", "ES")}  # fmt: skip
    assert (stacks["ED"][0] == moving(1)[16]).all()
    assert (stacks["ED"][-1] == moving(1)[2]).all()
    assert (stacks["ES"] == stacks["ED"][::-1]).all()


@dataclass
class Fault:
    """A fault of the 2CH sequence of patient0001, and the expected message."""

    break_it: Callable[[Path], object]
    reason: str


FAULTS = {
    "truncated": Fault(lambda p: p.write_bytes(p.read_bytes()[:-50]), "truncated"),
    "one frame": Fault(lambda p: write_nifti(p, echo()[0]), "has 1 frame"),
    "NaN": Fault(lambda p: write_nifti(p, np.full((3, 24, 40), np.nan, np.float32)), "NaN"),
    "other size": Fault(lambda p: write_nifti(p, moving()[:, :-1]), "23 x 40 pixels"),
    "other spacing": Fault(
        lambda p: write_nifti(p, moving(), np.diag([-0.4, -0.5, 1, 1])), "spacing"
    ),
    "too short": Fault(
        lambda p: write_nifti(p, moving()[:17]),
        "has 17 frames, but according to Info_2CH.cfg ED and ES are the frames 1 and 18",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_named_and_skippable(config: CamusDataset, tmp_path: Path, name: str) -> None:
    path, fault = sequence_path(config.source, 1, "2CH"), FAULTS[name]
    fault.break_it(path)
    with pytest.raises(BadFilesError) as caught:
        prepare("camus", config, tmp_path / "d.parquet", skip_bad=False, threads=1)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{path}: ")
    assert fault.reason in problem
    facts = prepare("camus", config, tmp_path / "d.parquet", skip_bad=True, threads=1)
    assert facts["cases"]["train"] == 6
    assert facts["skipped"] == [problem]


def test_frame_rate_comes_from_the_cfg_beside_it(config: CamusDataset) -> None:
    path = sequence_path(config.source, 1, "2CH")
    assert frame_rate(path) == 48.4
    assert frame_rate(path.with_name("scan.nii.gz")) is None
    (path.parent / "Info_2CH.cfg").write_text(INFO.replace("48.4", "fast"))
    assert frame_rate(path) is None
