"""Reading of M-mode windows and their problems."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from heartseg.config.data import MmodeDataset
from heartseg.config.params import Params
from heartseg.data.source import Survey
from heartseg.data.windows import reader as mmode
from heartseg.errors import BadFilesError, InputError
from heartseg.metrics.mmode import diameter_trace
from tests.data.raw import DEPTH, WIDTH, echo, write_windows
from tests.examples import real_data


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


def test_source(config: MmodeDataset) -> None:
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
    sample = mmode.survey(config).cases[0].read()
    assert (sample.mask == inside).all()
    assert sample.notes == ()


def test_a_mask_of_more_than_two_levels_is_noted(config: MmodeDataset) -> None:
    levels = np.array([0, 120, 255, 130], np.uint8)[echo()[1]]
    save(config.source / "mask/a0_w0.png", levels)
    sample = mmode.survey(config).cases[0].read()
    assert (sample.mask == (levels >= 130)).all()
    assert sample.notes == (
        "a0_w0: its mask has 4 gray levels; those above 127.5, half of the maximum, are read as LV",
    )


@pytest.mark.parametrize("kind", ["RGBA", "LA", "palette"])
def test_a_mask_in_the_alpha_channel_is_a_fault_and_an_opaque_one_is_not(
    config: MmodeDataset, kind: str
) -> None:
    inside = np.where(echo()[1] == 1, 255, 0).astype(np.uint8)
    path = config.source / "mask/a0_w0.png"
    if kind == "palette":
        Image.fromarray(inside // 255).convert("P").save(path, transparency=0)
    else:
        picture = Image.fromarray(inside).convert(kind)
        picture.save(path)
        assert (mmode.survey(config).cases[0].read().mask == (inside > 0)).all()
        picture.putalpha(Image.fromarray(inside))
        picture.save(path)
    (fault,) = faults(mmode.survey(config))
    assert fault.startswith(f"{path}: is transparent")
    if kind == "RGBA":  # no pixel is opaque
        picture.putalpha(0)
        picture.save(path)
        assert faults(mmode.survey(config)) == [fault]


def test_windows_csv_has_precedence_over_params(config: MmodeDataset) -> None:
    (config.source / "windows.csv").write_text(
        "name,mm_per_row,s_per_column,quality,lvidd_mm,lvids_mm,heart_rate_bpm,animal\n"
        "a0_w0,0.08,0.001,Good,4.0,2.5,480,1\n"
        "a0_w1.png,,0.003,,4.1,,,1\n"
        "gone_w0,0.05,0.001,Good,4.0,2.5,480,2\n"
    )
    survey = mmode.survey(config)
    assert faults(survey) == []
    first, second, third = (case.read() for case in survey.cases[:3])
    assert first.spacing == (0.08, 0.001)
    assert first.quality == "Good"
    assert first.reference == {
        "reference_lvidd": 4.0,
        "reference_lvids": 2.5,
        "reference_hr": 480.0,
    }
    assert second.spacing == (0.1, 0.003)
    assert second.reference == {"reference_lvidd": 4.1}
    assert third.spacing == (0.1, 0.002)
    absent, without = survey.notes
    assert "gone_w0" in absent
    assert "a2_w1" in without


def test_animal_from_windows_csv(config: MmodeDataset) -> None:
    (config.source / "windows.csv").write_text(
        "name,animal,recording\na0_w0,m1,a0\na0_w1,m1,a0\na1_w0,m1,a1\na1_w1,m1,a1\na2_w0,,\n"
    )
    survey = mmode.survey(config)
    assert faults(survey) == []
    assert [case.patient for case in survey.cases] == ["m1"] * 4 + ["a2"] * 2
    assert [case.read().frame for case in survey.cases] == [0, 1, 2, 3, 0, 1]


def test_recording_with_two_animals_is_a_problem_of_its_windows(config: MmodeDataset) -> None:
    """Otherwise windows of one recording could be in different splits."""
    (config.source / "windows.csv").write_text(
        "name,animal,recording\na0_w0,m1,a0\na0_w1,m2,a0\na1_w0,m1,a1\na1_w1,,a1\na2_w0,m3,a2\n"
    )
    survey = mmode.survey(config)
    found = faults(survey)
    assert len(found) == 2
    assert "the windows of a0 have different animals: m1, m2" in found[0]
    assert (
        "the windows of a1 have different animals: m1, none" in found[1] or "none, m1" in found[1]
    )
    assert [bool(case.problems) for case in survey.cases] == [True] * 4 + [False] * 2


def test_windows_csv_may_have_spaces_and_needs_no_spacing(config: MmodeDataset) -> None:
    (config.source / "windows.csv").write_text(
        'name, mm_per_row ,quality,frame\n"a0_w0" , "0.08", Good ,7\n'
    )
    survey = mmode.survey(config)
    sample = survey.cases[0].read()
    assert (sample.spacing, sample.quality) == ((0.08, 0.002), "Good")
    column, rows = survey.notes
    assert "s_per_column" in column
    assert "a2_w1" in rows


def test_other_files_are_noted(config: MmodeDataset) -> None:
    (config.source / "img/a7_w0.doc").touch()
    for number in range(10):
        (config.source / f"mask/{number}.txt").touch()
    (config.source / "mask/.hidden").touch()
    survey = mmode.survey(config)
    image, mask = survey.notes
    assert image.startswith("img: ")
    assert image.endswith(" a7_w0.doc")
    assert mask.endswith("7.txt and 2 more")
    assert len(survey.cases) == 6


def test_windows_of_an_animal_are_counted_in_their_order(config: MmodeDataset) -> None:
    for kind in ("img", "mask"):
        shutil.copy(config.source / kind / "a0_w0.png", config.source / kind / "a0_w10.png")
        (config.source / kind / "a0_w0.png").rename(config.source / kind / "a0_w2.png")
    frames = {case.case_id: case.read().frame for case in mmode.survey(config).cases[:4]}
    assert list(frames) == ["a0_w1", "a0_w10", "a0_w2", "a1_w0"]
    assert frames == {"a0_w1": 0, "a0_w2": 1, "a0_w10": 2, "a1_w0": 0}


def test_other_image_formats_are_read(config: MmodeDataset) -> None:
    """8-bit values stored in 16 bits, and TIFF with the suffix of PNG."""
    image, _ = echo(5)
    save(config.source / "img/a0_w0.png", image.astype(np.uint16) * 257)
    Image.fromarray(image).save(config.source / "img/a0_w1.png", format="TIFF")
    first, second = (case.read() for case in mmode.survey(config).cases[:2])
    assert abs(first.image.astype(int) - image).max() <= 1
    assert (second.image == image).all()


def test_animal_pattern(config: MmodeDataset) -> None:
    other = config.model_copy(update={"animal_pattern": r"_(?P<animal>w\d)$"})
    assert {case.patient for case in mmode.survey(other).cases} == {"w0", "w1"}


def sidecar(text: str) -> Callable[[Path], object]:
    return lambda source: (source / "windows.csv").write_text(text)


def rename(source: Path) -> None:
    for folder in ("img", "mask"):
        (source / folder / "a0_w0.png").rename(source / folder / "nobody.png")


BYTES = np.zeros((DEPTH, WIDTH), np.uint8)
FAULTS: dict[str, tuple[Callable[[Path], object], str, str, int]] = {
    # function that causes the fault, named file, expected reason, number of affected cases
    "no mask": (lambda s: (s / "mask/a0_w0.png").unlink(), "mask/a0_w0.png", "missing", 1),
    "no image": (lambda s: (s / "img/a0_w0.png").unlink(), "img/a0_w0.png", "missing", 1),
    "other size": (
        lambda s: save(s / "mask/a0_w0.png", BYTES[:, 1:]),
        "mask/a0_w0.png",
        "24 x 39 pixels",
        1,
    ),
    "zero bytes": (lambda s: (s / "img/a0_w0.png").write_bytes(b""), "img/a0_w0.png", "empty", 1),
    "truncated": (
        lambda s: (s / "img/a0_w0.png").write_bytes((s / "img/a0_w0.png").read_bytes()[:-60]),
        "img/a0_w0.png",
        "cannot be read",
        1,
    ),
    "too small": (
        lambda s: save(s / "img/a0_w0.png", BYTES[:2]),
        "img/a0_w0.png",
        "2 x 40 pixels",
        1,
    ),
    "nameless animal": (rename, "img/nobody.png", "finds no animal", 1),
    "spacing of 0": (
        sidecar("name,mm_per_row\na0_w0,0\na0_w1,0.1\n"),
        "windows.csv",
        "mm_per_row of a0_w0 is 0",
        1,
    ),
    "negative spacing": (
        sidecar("name,s_per_column\na0_w0,-0.1\n"),
        "windows.csv",
        "s_per_column of a0_w0 is -0.1",
        1,
    ),
    "wordy heart rate": (
        sidecar("name,heart_rate_bpm\na0_w0,fast\n"),
        "windows.csv",
        "heart_rate_bpm of a0_w0 is 'fast'",
        1,
    ),
    "no name column": (sidecar("file\na0_w0\n"), "windows.csv", "has no column name", 6),
    "empty sidecar": (sidecar(""), "windows.csv", "is empty", 6),
    "no rows": (sidecar("name\n"), "windows.csv", "none of the windows", 6),
    "misspelt column": (
        sidecar("name,mm_per_rows\na0_w0,0.05\n"),
        "windows.csv",
        "no column 'mm_per_rows'; did you mean 'mm_per_row'?",
        6,
    ),
    "column twice": (
        sidecar("name,mm_per_row,mm_per_row\na0_w0,0.05,0.1\n"),
        "windows.csv",
        "more than one column mm_per_row",
        6,
    ),
    "decimal comma": (
        sidecar("name,mm_per_row\na0_w0,1,5\n"),
        "windows.csv",
        "row 1 below the header has 3 cells for 2 columns",
        6,
    ),
    "two files of a name": (
        lambda s: shutil.copy(s / "mask/a0_w0.png", s / "mask/a0_w0.PNG"),
        "mask/a0_w0.png",
        "is a second file of the name a0_w0",
        1,
    ),
    "sidecar of others": (sidecar("name\nb0_w0\n"), "windows.csv", "none of the windows", 6),
    "twice in the sidecar": (
        sidecar("name\na0_w0\na0_w0.png\n"),
        "windows.csv",
        "several rows for a0_w0",
        6,
    ),
    "binary sidecar": (
        lambda s: (s / "windows.csv").write_bytes(bytes(range(256))),
        "windows.csv",
        "UTF",
        6,
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_named_and_affects_only_its_cases(config: MmodeDataset, name: str) -> None:
    break_it, path, reason, hit = FAULTS[name]
    break_it(config.source)
    survey = mmode.survey(config)
    found = faults(survey)
    assert len(found) == 1
    assert found[0].startswith(f"{config.source / path}: ")
    assert reason in found[0]
    unread = 0
    for case in survey.cases:
        try:
            case.read()
        except BadFilesError:
            unread += 1
    assert unread == hit


def test_folder_named_like_a_png_is_a_problem(config: MmodeDataset) -> None:
    (config.source / "img/a9_w0.png").mkdir()
    found = faults(mmode.survey(config))
    assert len(found) == 2  # neither image nor mask can be read
    assert "Is a directory" in found[0]


@pytest.mark.parametrize(
    ("pattern", "reason"), [("(?P<animal>", "not a regular expression"), (r"\d+", "no group")]
)
def test_unusable_patterns_are_refused(config: MmodeDataset, pattern: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        mmode.survey(config.model_copy(update={"animal_pattern": pattern}))


def test_invalid_sources_are_refused(config: MmodeDataset, tmp_path: Path) -> None:
    def refuse(reason: str) -> None:
        with pytest.raises(InputError, match=reason):
            mmode.survey(config.model_copy(update={"source": tmp_path / "other"}))

    refuse("is not a folder")
    (tmp_path / "other/img").mkdir(parents=True)
    refuse("no folder mask")
    (tmp_path / "other/mask").mkdir()
    refuse("no PNG")


def test_real_annotation_comes_back_as_its_traces(config: MmodeDataset, tmp_path: Path) -> None:
    real = real_data("HEARTSEG_MMODE_ROOT")
    source = tmp_path / "real"
    for kind in ("img", "mask"):
        (source / kind).mkdir(parents=True)
        shutil.copy(real / f"annotation_example_{kind}.png", source / kind / "rec_w0.png")
    scale = {"mm_per_row": 0.011525974}  # of Echo2Pheno's recordings; the strip has 1236 rows
    survey = mmode.survey(config.model_copy(update={"source": source, **scale}))
    assert survey.notes == []
    sample = survey.cases[0].read()
    assert sample.patient == "rec"
    with (real / "annotation_example_traces.csv").open(newline="") as stream:
        traces = list(csv.DictReader(stream))
    assert [int(line["col"]) for line in traces] == list(range(sample.mask.shape[1]))
    drawn = np.array([float(line["lower_row"]) - float(line["upper_row"]) for line in traces])
    read = diameter_trace(sample.mask, 1)
    assert (np.abs(read - drawn) <= 2).mean() >= 0.95
