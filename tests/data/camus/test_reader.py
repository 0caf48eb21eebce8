"""Reading of CAMUS sources and their problems."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from heartseg.data.camus import reader as camus
from heartseg.data.source import Survey
from heartseg.errors import BadFilesError, InputError
from tests.data.raw import (
    AFFINE,
    INFO,
    SPACING,
    echo,
    write_list,
    write_nifti,
    write_patient,
    write_release,
)
from tests.examples import real_data


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_release(tmp_path / "release")


def faults(survey: Survey) -> list[str]:
    """Return all problems of a source."""
    found = list(survey.problems)
    for case in survey.cases:
        try:
            case.read()
        except BadFilesError as error:
            found += error.problems
    return list(dict.fromkeys(found))


def test_release(source: Path) -> None:
    survey = camus.survey(source, use_lists=True)
    assert faults(survey) == []
    assert survey.notes == []
    assert [case.case_id for case in survey.cases[:5]] == [
        "patient0001_2CH_ED",
        "patient0001_2CH_ES",
        "patient0001_4CH_ED",
        "patient0001_4CH_ES",
        "patient0002_2CH_ED",
    ]
    assert survey.official == {
        "patient0001": "train",
        "patient0002": "train",
        "patient0003": "val",
        "patient0004": "test",
    }
    sample = survey.cases[3].read()
    image, mask = echo(13)  # 4CH ES
    assert (sample.image == image).all()
    assert (sample.mask == mask).all()
    assert sample.image.dtype == sample.mask.dtype == np.uint8
    assert sample.spacing == pytest.approx(SPACING)
    assert (sample.patient, sample.view, sample.phase) == ("patient0001", "4CH", "ES")
    assert (sample.frame, sample.quality) == (17, "Good")  # ES: 18 counts from 1
    assert sample.reference == {"reference_ef": 54.0}


def test_frame_numbers_follow_cfg_if_es_is_first(source: Path) -> None:
    cfg = source / "database_nifti/patient0001/Info_2CH.cfg"
    cfg.write_text(INFO.replace("ED: 1\nES: 18", "ED: 18\nES: 1"))
    frames = {case.case_id: case.read().frame for case in camus.survey(source, True).cases[:4]}
    assert list(frames.values()) == [17, 0, 0, 17]


def test_uncompressed_files_and_other_value_ranges(tmp_path: Path) -> None:
    folder = write_patient(tmp_path, "patient0001", ending=".nii")
    ramp = np.linspace(0, 4000, 24 * 40).reshape(24, 40)
    write_nifti(folder / "patient0001_2CH_ED.nii", ramp.astype(np.float32))
    survey = camus.survey(tmp_path, use_lists=True)
    assert len(survey.cases) == 4
    assert survey.official is None
    image = survey.cases[0].read().image
    assert (image.min(), image.max(), image[12, 0]) == (0, 255, round(255 * 480 / 959))


def test_true_volumes_come_from_truth_csv(source: Path) -> None:
    (source / "truth.csv").write_text(
        "patient,edv_ml,esv_ml,ef_percent\npatient0001,120.5,60.25,50.0\n"
    )
    survey = camus.survey(source, use_lists=True)
    assert survey.cases[0].read().reference == {
        "reference_edv": 120.5,
        "reference_esv": 60.25,
        "reference_ef": 54.0,
    }
    assert survey.cases[4].read().reference == {"reference_ef": 54.0}


def test_missing_frames_are_noted(source: Path) -> None:
    database = source / "database_nifti"
    for path in database.glob("patient0002/*4CH*"):
        path.unlink()
    for path in database.glob("patient0003/*_2CH_ES*"):
        path.unlink()
    (database / "patient0003/patient0001_2CH_ES.nii.gz").write_bytes(b"")
    (database / "patient0003/patient0003_2CH_half_sequence.nii.gz").write_bytes(b"")
    (database / "patient0004").rename(database / ".hidden")
    (database / "README.txt").write_text("no patient")
    (database / "__MACOSX").mkdir()  # stray folders are in no list, and need not be
    (database / "patient0999").mkdir()
    (database / "patient0999/Info_2CH.cfg").write_text(INFO)
    survey = camus.survey(source, use_lists=True)
    assert faults(survey) == []
    assert len(survey.cases) == 4 + 2 + 3
    notes = "\n".join(survey.notes)
    assert "subgroup_testing.txt: 1 of its 1 patients" in notes
    assert "patient0002: no 4CH ED, 4CH ES" in notes
    assert "patient0003: no 2CH ES" in notes
    assert "patient0999: has Info_2CH.cfg" in notes
    assert "patient0003/patient0001_2CH_ES.nii.gz" in notes  # whose frame is that?
    assert len(survey.notes) == 5


def test_text_files_may_begin_with_a_byte_order_mark(source: Path) -> None:
    for name, text in {
        CFG: INFO,
        "truth.csv": "patient,edv_ml,esv_ml\npatient0001,90,40\n",
    }.items():
        (source / name).write_text(text, encoding="utf-8-sig")
    survey = camus.survey(source, use_lists=True)
    assert faults(survey) == []
    assert survey.cases[0].read().reference["reference_edv"] == 90


def test_wrong_volumes_are_dropped_for_their_patients_only(source: Path) -> None:
    (source / "truth.csv").write_text(
        "patient,edv_ml,esv_ml\npatient0001,90,40\npatient0002,90,95\n"
        "patient0003,90,40\npatient0003,80,40\npatient0004,inf,40\n"
    )
    survey = camus.survey(source, use_lists=True)
    facts = ("for patient0003", "edv_ml 90 and esv_ml 95", "edv_ml of patient0004 is 'inf'")
    for problem, fact in zip(survey.problems, facts, strict=True):
        assert problem.startswith(f"{source}/truth.csv: ")
        assert fact in problem
    known = {case.patient for case in survey.cases if "reference_edv" in case.read().reference}
    assert known == {"patient0001"}


# --- faults -------------------------------------------------------------------------------


@dataclass
class Fault:
    """A way to break patient0001 or the lists.

    Attributes:
        path: the file that must be named, below the source.
        reason: what must be said about it.
        hit: number of cases that must not be read.
    """

    break_it: Callable[[Path], object]
    path: str
    reason: str
    hit: int


P1 = "database_nifti/patient0001"
IMAGE, MASK, CFG = (
    f"{P1}/patient0001_2CH_ED.nii.gz",
    f"{P1}/patient0001_2CH_ED_gt.nii.gz",
    f"{P1}/Info_2CH.cfg",
)
LISTS = "database_split"


def truncate(source: Path) -> None:
    (source / IMAGE).write_bytes((source / IMAGE).read_bytes()[:-50])


def wrong_label(source: Path) -> None:
    mask = echo()[1]
    mask[5, 5] = 4
    write_nifti(source / MASK, mask)


def between_labels(source: Path) -> None:
    write_nifti(source / MASK, echo()[1].astype(np.float32) / 2)


def nan(source: Path) -> None:
    write_nifti(source / IMAGE, np.full((24, 40), np.nan, np.float32))


def folder_for_file(source: Path) -> None:
    (source / IMAGE).unlink()
    (source / IMAGE).mkdir()


def sequence(source: Path) -> None:
    write_nifti(source / IMAGE, np.zeros((3, 24, 40), np.uint8))


FAULTS = {
    "truncated gzip": Fault(truncate, IMAGE, "truncated", 1),
    "a sequence": Fault(sequence, IMAGE, "contains 3 frames", 1),
    "label 4": Fault(wrong_label, MASK, "outside 0-3 (4)", 1),
    "interpolated labels": Fault(between_labels, MASK, "outside 0-3 (0.5, 1.5)", 1),
    "mask of another shape": Fault(
        lambda s: write_nifti(s / MASK, echo()[1][:, :-1]), MASK, "24 x 39 pixels", 1
    ),
    "transposed mask": Fault(
        lambda s: write_nifti(s / MASK, echo()[1].T), MASK, "40 x 24 pixels", 1
    ),
    "mask of another affine": Fault(
        lambda s: write_nifti(s / MASK, echo()[1], AFFINE * 1.05), MASK, "different affine", 1
    ),
    "mask without orientation": Fault(
        lambda s: write_nifti(s / MASK, echo()[1], np.eye(4)), MASK, "orientation", 1
    ),
    "mask of a sequence": Fault(
        lambda s: write_nifti(s / MASK, np.zeros((3, 24, 40), np.uint8)), MASK, "3 frames", 1
    ),
    "NaN": Fault(nan, IMAGE, "NaN", 1),
    "mask missing": Fault(lambda s: (s / MASK).unlink(), MASK, "missing", 1),
    "image missing": Fault(lambda s: (s / IMAGE).unlink(), IMAGE, "missing", 1),
    "zero bytes": Fault(lambda s: (s / IMAGE).write_bytes(b""), IMAGE, "empty", 1),
    "folder for a file": Fault(folder_for_file, IMAGE, "is a folder", 1),
    "cfg empty": Fault(lambda s: (s / CFG).write_text(" \n"), CFG, "empty", 2),
    "cfg missing": Fault(lambda s: (s / CFG).unlink(), CFG, "missing", 2),
    "cfg binary": Fault(
        lambda s: (s / CFG).write_bytes(bytes(range(256))), CFG, "not a text file", 2
    ),
    "cfg without ES": Fault(lambda s: (s / CFG).write_text("ED: 1\n"), CFG, "no line ES", 2),
    "cfg with frame 0": Fault(
        lambda s: (s / CFG).write_text(INFO.replace("ED: 1", "ED: 0")), CFG, "ED is '0'", 2
    ),
    "cfg with a wordy EF": Fault(
        lambda s: (s / CFG).write_text(INFO.replace("EF: 54", "EF: good")), CFG, "EF is 'good'", 2
    ),
    "cfg with EF of NaN": Fault(
        lambda s: (s / CFG).write_text(INFO.replace("EF: 54", "EF: nan")), CFG, "EF is 'nan'", 2
    ),
    "cfg with EF as a fraction": Fault(
        lambda s: (s / CFG).write_text(INFO.replace("EF: 54", "EF: 0.54")), CFG, "fraction", 2
    ),
    "list empty": Fault(
        lambda s: write_list(s, "testing", []),
        f"{LISTS}/subgroup_testing.txt",
        "contains no patients",
        4,
    ),
    "list naming nobody": Fault(
        lambda s: write_list(s, "validation", ["Patient_3"]),
        f"{LISTS}/subgroup_validation.txt",
        "'Patient_3'",
        4,
    ),
    "list binary": Fault(
        lambda s: (s / LISTS / "subgroup_testing.txt").write_bytes(b"\xff\x00\xfe"),
        f"{LISTS}/subgroup_testing.txt",
        "not a text file",
        4,
    ),
    "lists overlap": Fault(
        lambda s: write_list(s, "testing", ["patient0001", "patient0004"]),
        LISTS,
        "patient0001 is in 2 split lists",
        4,
    ),
    "patient in no list": Fault(
        lambda s: write_list(s, "training", ["patient0002"]),
        LISTS,
        "patient0001 is in no split lists",
        4,
    ),
    "truth.csv of other columns": Fault(
        lambda s: (s / "truth.csv").write_text("a,b\n1,2\n"), "truth.csv", "no column patient", 0
    ),
    "truth.csv of words": Fault(
        lambda s: (s / "truth.csv").write_text("patient,edv_ml,esv_ml\npatient0001,big,1\n"),
        "truth.csv",
        "edv_ml of patient0001 is 'big'",
        0,
    ),
    "truth.csv with a volume of 0": Fault(
        lambda s: (s / "truth.csv").write_text("patient,edv_ml,esv_ml\npatient0001,90,0\n"),
        "truth.csv",
        "esv_ml 0",
        0,
    ),
    "truth.csv with NaN": Fault(
        lambda s: (s / "truth.csv").write_text("patient,edv_ml,esv_ml\npatient0001,nan,40\n"),
        "truth.csv",
        "edv_ml of patient0001 is 'nan'",
        0,
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_named_and_affects_only_its_cases(source: Path, name: str) -> None:
    fault = FAULTS[name]
    fault.break_it(source)
    survey = camus.survey(source, use_lists=True)
    named = [text for text in faults(survey) if text.startswith(f"{source / fault.path}: ")]
    assert len(named) == 1
    assert fault.reason in named[0]
    assert named[0].endswith(".")
    unread = 0
    for case in survey.cases:
        try:
            case.read()
        except BadFilesError:
            unread += 1
    assert unread == fault.hit


def test_lists_are_ignored_if_not_used(source: Path) -> None:
    write_list(source, "training", [])
    survey = camus.survey(source, use_lists=False)
    assert faults(survey) == []
    assert survey.official is None


def test_sources_without_release_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent: does not exist"):
        camus.survey(tmp_path / "absent", use_lists=True)
    with pytest.raises(InputError, match="no file"):
        camus.survey(tmp_path, use_lists=True)
    (tmp_path / "release.zip").touch()
    with pytest.raises(InputError, match=r"file, not a folder"):
        camus.survey(tmp_path / "release.zip", use_lists=True)


def test_first_unexpected_name_is_reported(tmp_path: Path) -> None:
    """The message has the found files, the expected layout and the first unexpected name."""
    (tmp_path / "b").mkdir()
    for name in ("notes.txt", "b/heart_apical4_dia.nii.gz", "b/heart_apical4_sys.nii.gz"):
        (tmp_path / name).touch()
    with pytest.raises(InputError) as caught:
        camus.survey(tmp_path, use_lists=True)
    for term in ("2 .nii.gz", "1 .txt", "PATIENT_VIEW_PHASE", "b/heart_apical4_dia.nii.gz"):
        assert term in str(caught.value)


def test_images_without_any_mask_are_refused(source: Path) -> None:
    for mask in source.rglob("*_gt*"):
        mask.unlink()
    with pytest.raises(InputError, match="16 images, but no reference masks"):
        camus.survey(source, use_lists=True)


# --- layouts ------------------------------------------------------------------------------


def renamed(source: Path, change: Callable[[Path], Path]) -> None:
    """Move every image and mask of a release."""
    for path in sorted((source / "database_nifti").rglob("*.nii.gz")):
        target = change(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)


def one_folder_deeper(source: Path) -> None:
    inner = source / "release"
    inner.mkdir()
    for name in ("database_nifti", "database_split"):
        (source / name).rename(inner / name)


def patients_directly_below(source: Path) -> None:
    for folder in sorted((source / "database_nifti").iterdir()):
        folder.rename(source / folder.name)


def dashes(source: Path) -> None:
    renamed(source, lambda path: path.with_name(path.name.replace("_", "-", 1)))


def upper_case(source: Path) -> None:
    renamed(source, lambda path: path.with_name(path.name.replace(".nii.gz", ".NII.GZ")))
    for path in source.rglob("*.cfg"):
        path.write_text(path.read_text().upper().replace("GOOD", "Good"))
        path.rename(path.with_name(path.name.upper()))


def resource_forks(source: Path) -> None:
    for path in sorted(source.rglob("*.*")):
        (path.parent / f"._{path.name}").write_bytes(b"\0\5\x16\7" + bytes(200))


def challenge_of_2019(source: Path) -> None:
    for folder in sorted((source / "database_nifti").iterdir()):
        place = source / ("testing" if folder.name == "patient0004" else "training")
        place.mkdir(exist_ok=True)
        folder.rename(place / folder.name)
    for path in source.rglob("*.cfg"):
        path.write_text(INFO.replace("EF: 54", "LVedv: 100\nLVesv: 46\nLVef: 54"))
    for path in source.glob("testing/*/*_gt*"):
        path.unlink()


def masks_in_their_own_folder(source: Path) -> None:
    for path in sorted(source.rglob("*_gt*")):
        target = source / "masks" / path.parent.name / path.name.replace("_gt", "")
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)


def nnunet(source: Path) -> None:
    def place(path: Path) -> Path:
        if "_gt" in path.name:
            return source / "labelsTr" / path.name.replace("_gt", "")
        last = "Ts" if path.name.startswith("patient0004") else "Tr"
        return source / f"images{last}" / path.name.replace(".nii.gz", "_0000.nii.gz")

    for path in source.glob("database_nifti/patient0004/*_gt*"):
        path.unlink()
    renamed(source, place)
    shutil.rmtree(source / "database_nifti")


def metaimage(source: Path) -> None:
    import SimpleITK as sitk

    for number, path in enumerate(sorted(source.rglob("*.nii.gz"))):
        stem = path.name.removesuffix(".nii.gz")
        image = sitk.GetImageFromArray(np.asarray(nib.load(path).dataobj).T)
        image.SetSpacing(SPACING[::-1])
        sitk.WriteImage(image, str(path.with_name(f"{stem}{('.mhd', '.mha')[number % 2]}")))
        path.unlink()


LAYOUTS = {
    metaimage: 16,
    one_folder_deeper: 16,
    patients_directly_below: 16,
    dashes: 16,
    upper_case: 16,
    resource_forks: 16,
    challenge_of_2019: 12,
    masks_in_their_own_folder: 16,
    nnunet: 12,
}


@pytest.mark.parametrize("arrange", LAYOUTS)
def test_every_layout_gives_the_same_cases(source: Path, arrange: Callable[[Path], None]) -> None:
    survey = camus.survey(source, use_lists=True)
    expected = {case.case_id: case.read() for case in survey.cases}
    arrange(source)
    found = camus.survey(source, use_lists=True)
    assert faults(found) == []
    assert found.official == survey.official
    assert len(found.cases) == LAYOUTS[arrange]
    for sample in [case.read() for case in found.cases]:
        own = expected[sample.case_id]
        assert (sample.image == own.image).all()
        assert (sample.mask == own.mask).all()
        assert sample.spacing == pytest.approx(own.spacing)
        if arrange is challenge_of_2019:
            volumes = {"reference_edv": 100.0, "reference_esv": 46.0}
            assert sample.reference == own.reference | volumes
        elif arrange is not nnunet:  # which has no Info_VIEW.cfg
            assert (sample.reference, sample.quality) == (own.reference, own.quality)
            assert sample.frame == own.frame
    missing = [note for note in found.notes if "no reference masks" in note]
    assert len(missing) == (LAYOUTS[arrange] == 12)
    assert all("patient0004" in note for note in missing)


def test_lists_beside_database_nifti_are_read(source: Path) -> None:
    survey = camus.survey(source / "database_nifti", use_lists=True)
    assert survey.official == camus.survey(source, use_lists=True).official
    assert survey.problems == []


def test_reference_masks_in_test_folder_are_noted(source: Path) -> None:
    (source / "testing").mkdir()
    (source / "database_nifti/patient0004").rename(source / "testing/patient0004")
    notes = camus.survey(source, use_lists=False).notes
    assert ["patient0004" in note for note in notes if note.startswith("testing/")] == [True]


def test_duplicate_frame_is_refused(source: Path) -> None:
    copy = source / "copy" / "patient0001_2CH_ED.nii.gz"
    copy.parent.mkdir()
    shutil.copy(source / IMAGE, copy)
    survey = camus.survey(source, use_lists=False)
    (problem,) = faults(survey)
    assert str(copy) in problem
    assert str(source / IMAGE) in problem


def test_different_label_names_are_noted(source: Path) -> None:
    for names, count in ((("LV", "MYO", "LA"), 0), (("LA", "MYO", "LV"), 1)):
        labels = {name: value for value, name in enumerate(("background", *names))}
        (source / "dataset.json").write_text(json.dumps({"labels": labels}))
        notes = camus.survey(source, use_lists=True).notes
        assert len(notes) == count
    assert "LA 1" in notes[0]


def test_cyclic_links(source: Path) -> None:
    (source / "database_nifti/patient0001/up").symlink_to(source)
    assert len(camus.survey(source, use_lists=True).cases) == 16


# --- scale --------------------------------------------------------------------------------


def test_configured_spacing_is_used_if_file_has_no_plausible_scale(source: Path) -> None:
    image, mask = echo()
    write_nifti(source / IMAGE, image, np.eye(4))
    write_nifti(source / MASK, mask, np.eye(4))
    (problem,) = faults(camus.survey(source, use_lists=True))
    assert problem.startswith(str(source / IMAGE))
    assert "datasets.camus.spacing" in problem
    survey = camus.survey(source, use_lists=True, spacing=(4.0, 2.0))
    first, second = (survey.cases[number].read() for number in (0, 1))
    assert first.spacing == (4.0, 2.0)
    assert any("4 x 2 mm" in note for note in first.notes)
    assert second.spacing == pytest.approx(SPACING)  # which its file states
    assert second.notes == ()


def test_real_release_is_complete() -> None:
    survey = camus.survey(real_data("HEARTSEG_CAMUS_ROOT"), use_lists=True)
    assert survey.problems == []
    assert survey.official is not None
    assert len(survey.cases) == 1198
    assert "patient0039: no 4CH ED, 4CH ES" in survey.notes
    sample = survey.cases[0].read()
    rows, columns = np.nonzero(sample.mask == 1)
    atrium_rows, _ = np.nonzero(sample.mask == 3)
    assert rows.mean() < atrium_rows.mean()  # the apex is at the top, the atrium below
    assert 0.1 < sample.spacing[0] < 1
    area = rows.size * sample.spacing[0] * sample.spacing[1]
    assert 1000 < area < 8000  # mm², an adult's LV at end-diastole
    assert 0.2 < columns.mean() / sample.mask.shape[1] < 0.8
