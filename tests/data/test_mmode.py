"""The M-mode reader finds what is there, and names what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from heartseg.config import MmodeDataset, Params
from heartseg.data import mmode
from heartseg.data.source import Survey
from heartseg.errors import BadFilesError, InputError
from tests.data.raw import DEPTH, WIDTH, echo, write_windows


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_windows(tmp_path / "windows")


@pytest.fixture
def config(params: Params, source: Path) -> MmodeDataset:
    changes = {"source": source, "mm_per_row": 0.1, "s_per_column": 0.002}
    return params.datasets.mmode.model_copy(update=changes)


def faults(survey: Survey) -> list[str]:
    found = list(survey.problems)
    for case in survey.cases:
        try:
            case.read()
        except BadFilesError as error:
            found += error.problems
    return list(dict.fromkeys(found))


def save(path: Path, pixels: np.ndarray, mode: str | None = None) -> None:
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)


def test_a_good_source(config: MmodeDataset) -> None:
    survey = mmode.survey(config)
    assert faults(survey) == []
    assert survey.notes == []
    assert [case.case_id for case in survey.cases][:3] == ["a0_w0", "a0_w1", "a1_w0"]
    sample = survey.cases[3].read()
    image, mask = echo(11)
    assert (sample.image == image).all()
    assert (sample.mask == (mask == 1)).all()
    assert sample.image.shape == (DEPTH, WIDTH)
    assert sample.image.dtype == sample.mask.dtype == np.uint8
    assert (sample.patient, sample.frame, sample.spacing) == ("a1", 1, (0.1, 0.002))
    assert (sample.view, sample.phase, sample.quality, sample.reference) == ("", "", "", {})


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_colour_pictures_become_gray(config: MmodeDataset, mode: str) -> None:
    save(config.source / "img/a0_w0.png", echo(5)[0], mode)
    assert (mmode.survey(config).cases[0].read().image == echo(5)[0]).all()


@pytest.mark.parametrize("levels", [(0, 1), (0, 255), (0, 127), (3, 200)])
def test_masks_are_cut_at_half_of_their_maximum(
    config: MmodeDataset, levels: tuple[int, int]
) -> None:
    inside = echo()[1] == 1
    save(config.source / "mask/a0_w0.png", np.where(inside, levels[1], levels[0]).astype(np.uint8))
    mask = mmode.survey(config).cases[0].read().mask
    assert (mask == inside).all()


def test_windows_csv_says_more_than_the_parameters(config: MmodeDataset) -> None:
    (config.source / "windows.csv").write_text(
        "name,mm_per_row,s_per_column,quality,lvidd_mm,lvids_mm,heart_rate_bpm,animal\n"
        "a0_w0,0.05,0.001,Good,4.0,2.5,480,1\n"
        "a0_w1.png,,0.003,,4.1,,,1\n"
        "gone_w0,0.05,0.001,Good,4.0,2.5,480,2\n"
    )
    survey = mmode.survey(config)
    assert faults(survey) == []
    first, second, third = (case.read() for case in survey.cases[:3])
    assert first.spacing == (0.05, 0.001)
    assert first.quality == "Good"
    assert first.reference == {
        "reference_lvidd": 4.0,
        "reference_lvids": 2.5,
        "reference_hr": 480.0,
    }
    assert second.spacing == (0.1, 0.003)
    assert second.reference == {"reference_lvidd": 4.1}
    assert third.spacing == (0.1, 0.002)
    assert survey.notes == [
        "windows.csv: 1 of its 3 windows are absent",
        "windows.csv: 4 windows have no row, so params.yaml counts",
    ]


def test_the_pattern_tells_the_animal(config: MmodeDataset) -> None:
    other = config.model_copy(update={"animal_pattern": r"_(?P<animal>w\d)$"})
    assert {case.patient for case in mmode.survey(other).cases} == {"w0", "w1"}


def sidecar(text: str) -> Callable[[Path], object]:
    return lambda source: (source / "windows.csv").write_text(text)


def rename(source: Path) -> None:
    for folder in ("img", "mask"):
        (source / folder / "a0_w0.png").rename(source / folder / "nobody.png")


BYTES = np.zeros((DEPTH, WIDTH), np.uint8)
FAULTS: dict[str, tuple[Callable[[Path], object], str, str, int]] = {
    # how to break it, the file to be named, what must be said, cases that cannot be read
    "no mask": (lambda s: (s / "mask/a0_w0.png").unlink(), "mask/a0_w0.png", "missing", 1),
    "no image": (lambda s: (s / "img/a0_w0.png").unlink(), "img/a0_w0.png", "missing", 1),
    "other size": (
        lambda s: save(s / "mask/a0_w0.png", BYTES[:, 1:]),
        "mask/a0_w0.png",
        "(24, 39) pixels where the image has (24, 40)",
        1,
    ),
    "zero bytes": (lambda s: (s / "img/a0_w0.png").write_bytes(b""), "img/a0_w0.png", "read", 1),
    "truncated": (
        lambda s: (s / "img/a0_w0.png").write_bytes((s / "img/a0_w0.png").read_bytes()[:-60]),
        "img/a0_w0.png",
        "cannot be read",
        1,
    ),
    "jpeg inside": (
        lambda s: Image.fromarray(BYTES).save(s / "img/a0_w0.png", format="JPEG"),
        "img/a0_w0.png",
        "cannot be read",
        1,
    ),
    "16 bits": (
        lambda s: save(s / "img/a0_w0.png", BYTES.astype(np.uint16)),
        "img/a0_w0.png",
        "not 8 bits",
        1,
    ),
    "too small": (
        lambda s: save(s / "img/a0_w0.png", BYTES[:2]),
        "img/a0_w0.png",
        "2 x 40 pixels, too few",
        1,
    ),
    "nameless animal": (rename, "img/nobody.png", "finds no animal", 1),
    "spacing of 0": (
        sidecar("name,mm_per_row\na0_w0,0\na0_w1,0.1\n"),
        "windows.csv",
        "mm_per_row of a0_w0 is '0'",
        1,
    ),
    "negative spacing": (
        sidecar("name,s_per_column\na0_w0,-0.1\n"),
        "windows.csv",
        "s_per_column of a0_w0 is '-0.1'",
        1,
    ),
    "wordy heart rate": (
        sidecar("name,heart_rate_bpm\na0_w0,fast\n"),
        "windows.csv",
        "heart_rate_bpm of a0_w0 is 'fast'",
        1,
    ),
    "no name column": (sidecar("file\na0_w0\n"), "windows.csv", "KeyError", 6),
    "empty sidecar": (sidecar(""), "windows.csv", "names none", 6),
    "sidecar of others": (sidecar("name\nb0_w0\n"), "windows.csv", "names none", 6),
    "twice in the sidecar": (
        sidecar("name\na0_w0\na0_w0.png\n"),
        "windows.csv",
        "names a0_w0 more than once",
        6,
    ),
    "binary sidecar": (
        lambda s: (s / "windows.csv").write_bytes(bytes(range(256))),
        "windows.csv",
        "cannot be read",
        6,
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_named_and_hits_only_its_cases(config: MmodeDataset, name: str) -> None:
    break_it, path, reason, hit = FAULTS[name]
    break_it(config.source)
    survey = mmode.survey(config)
    found = faults(survey)
    assert len(found) == 1
    assert found[0].startswith(f"{config.source / path}: ")
    assert reason in found[0]
    assert found[0].endswith(".")
    unread = 0
    for case in survey.cases:
        try:
            case.read()
        except BadFilesError:
            unread += 1
    assert unread == hit


def test_a_folder_named_like_a_png_is_a_fault(config: MmodeDataset) -> None:
    (config.source / "img/a9_w0.png").mkdir()
    found = faults(mmode.survey(config))
    assert len(found) == 2  # neither image nor mask can be read
    assert "Is a directory" in found[0]


@pytest.mark.parametrize(
    ("pattern", "reason"), [("(?P<animal>", "no regular expression"), (r"\d+", "no group")]
)
def test_unusable_patterns_are_refused(config: MmodeDataset, pattern: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        mmode.survey(config.model_copy(update={"animal_pattern": pattern}))


def test_sources_that_are_no_dataset_are_refused(config: MmodeDataset, tmp_path: Path) -> None:
    def refuse(reason: str) -> None:
        with pytest.raises(InputError, match=reason):
            mmode.survey(config.model_copy(update={"source": tmp_path / "other"}))

    refuse("is no folder")
    (tmp_path / "other/img").mkdir(parents=True)
    refuse("no folder mask")
    (tmp_path / "other/mask").mkdir()
    refuse("no PNG")
