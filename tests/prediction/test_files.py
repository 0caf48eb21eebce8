"""The files to segment and the paths of their results."""

from __future__ import annotations

from pathlib import Path

import pytest

from heartseg.prediction import files
from heartseg.prediction.files import Job, find_jobs, in_chunks


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def places(*inputs: str) -> dict[str, str]:
    found, problems = find_jobs(inputs, Path("out"))
    assert problems == []
    here = Path.cwd()
    return {str(job.file.relative_to(here)): str(job.output.relative_to("out")) for job in found}


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def test_folders_are_searched_without_ground_truth_and_earlier_output():
    touch("in/b/x.nii.gz", "in/a/x.nii", "in/x_gt.nii.gz", "in/x_seg.nii.gz", "in/x_overlay.png")
    touch("in/x_uncertainty.nii.gz", "in/notes.txt", "in/mouse_gt3_w01.PNG", "in/c/clip.dcm")
    Path("in/IM_0001").write_bytes(bytes(128) + b"DICM")

    assert places("in") == {
        "in/a/x.nii": "a/x",
        "in/b/x.nii.gz": "b/x",
        "in/c/clip.dcm": "c/clip",
        "in/mouse_gt3_w01.PNG": "mouse_gt3_w01",
        "in/IM_0001": "IM_0001",
    }


def test_the_output_folder_is_not_searched():
    touch("scan.png", "out/old.png")

    assert places(".") == {"scan.png": "scan"}
    assert places("**/*.png") == {"scan.png": "scan"}


def test_patterns():
    touch("in/p1/a_2CH_ED.nii.gz", "in/p1/a_2CH_ED_gt.nii.gz")
    touch("in/p2/b_2CH_ED.nii.gz", "in/p2/c.png")

    assert places("in/*/*_ED*.nii.gz") == {
        "in/p1/a_2CH_ED.nii.gz": "p1/a_2CH_ED",
        "in/p2/b_2CH_ED.nii.gz": "p2/b_2CH_ED",
    }
    assert places("in/**/*.png") == {"in/p2/c.png": "c"}


def test_unusable_inputs_are_reported():
    touch("notes.txt", "empty/notes.txt")

    jobs, problems = find_jobs(["notes.txt", "empty", "absent.nii", "in/*.png"], Path("out"))

    assert jobs == []
    reasons = ("notes.txt: is not NIfTI", "empty: no .nii.gz", "absent.nii: does not exist")
    for reason, problem in zip((*reasons, "*.png: matches no image"), problems, strict=True):
        assert reason in problem


def test_equal_names_in_different_folders_stay_apart():
    touch("one/x.nii", "two/deep/x.nii", "two/y.nii")

    assert places("one/x.nii", "two", "two/y.nii") == {
        "one/x.nii": "one/x",
        "two/deep/x.nii": "two/deep/x",
        "two/y.nii": "two/y",
    }


def test_equal_names_of_different_kinds_stay_apart():
    touch("in/x.nii", "in/x.nii.gz", "in/x.png", "in/y.png")

    assert places("in") == {
        "in/x.nii": "x.nii",
        "in/x.nii.gz": "x.nii.gz",
        "in/x.png": "x.png",
        "in/y.png": "y",
    }


def test_chunks_contain_whole_patients_and_each_file_once():
    ends = [f"{view}_{phase}" for view in ("2CH", "4CH") for phase in ("ED", "ES")]
    patients = [f"p{number:02d}" for number in range(9)]
    names = [f"{patient}/{patient}_{end}" for patient in patients for end in ends]
    names += [f"p03/p03_{view}_half_sequence" for view in ("2CH", "4CH")] + ["x", "y"]
    jobs = [Job(Path(name), Path("out") / name) for name in reversed(names)]

    chunks = [[job.file.as_posix() for job in chunk] for chunk in in_chunks(jobs)]

    assert sorted(name for chunk in chunks for name in chunk) == sorted(names)
    assert len(chunks) > 1
    assert max(map(len, chunks)) < files.CHUNK_SIZE + 4
    for patient in patients:
        own = {f"{patient}/{patient}_{end}" for end in ends}
        assert sum(own <= set(chunk) for chunk in chunks) == 1
