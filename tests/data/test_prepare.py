"""Stage prepare: from a raw folder to a Parquet file, or to a list of all problems."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from PIL import Image

from heartseg.config.data import CamusDataset, CamusPhantoms, MmodeDataset, MmodePhantoms
from heartseg.config.params import Params
from heartseg.data.camus import reader as camus
from heartseg.data.phantoms.camus import write_camus
from heartseg.data.phantoms.mmode import write_mmode
from heartseg.data.prepared import decode_png, file_digest, read_metadata, read_prepared
from heartseg.errors import BadFilesError, InputError
from heartseg.prepare import main, prepare
from tests.data.raw import (
    AFFINE,
    SPACING,
    echo,
    write_list,
    write_nifti,
    write_release,
    write_windows,
)
from tests.examples import ROOT, real_data


@pytest.fixture
def camus_config(params: Params, tmp_path: Path) -> CamusDataset:
    source = write_release(tmp_path / "camus")
    return params.datasets.camus.model_copy(update={"source": source})


@pytest.fixture
def mmode_config(params: Params, tmp_path: Path) -> MmodeDataset:
    source = write_windows(tmp_path / "mmode")
    return params.datasets.mmode.model_copy(update={"source": source, "mm_per_row": 0.1})


def break_files(source: Path) -> dict[str, str]:
    """Damage files of patient0001 and patient0002, and return the expected reasons by path."""
    database = source / "database_nifti"
    first, second = database / "patient0001", database / "patient0002"
    cut = first / "patient0001_2CH_ED.nii.gz"
    cut.write_bytes(cut.read_bytes()[:-30])
    not_finite = first / "patient0001_2CH_ES.nii.gz"
    write_nifti(not_finite, np.full((24, 40), np.nan, np.float32))
    labels = first / "patient0001_4CH_ED_gt.nii.gz"
    write_nifti(labels, echo()[1] + 7)
    affine = first / "patient0001_4CH_ES_gt.nii.gz"
    write_nifti(affine, echo()[1], 2 * AFFINE)
    cfg = second / "Info_2CH.cfg"
    cfg.write_text("")
    missing = second / "patient0002_4CH_ED_gt.nii.gz"
    missing.unlink()
    write_list(source, "testing", ["patient0004", "patient0003"])
    return {
        str(cut): "truncated",
        str(not_finite): "NaN",
        str(labels): "outside 0-3 (7",
        str(affine): "affine",
        str(cfg): "empty",
        str(missing): "missing",
        str(source / "database_split"): "patient0003 is in 2 split lists",
    }


def test_camus(camus_config: CamusDataset, tmp_path: Path) -> None:
    path = tmp_path / "out" / "camus.parquet"
    facts = prepare("camus", camus_config, path, skip_bad=False, threads=2)
    table = read_prepared(path)
    assert list(table["case_id"]) == sorted(table["case_id"])
    assert len(table) == 16
    assert dict(table.groupby("patient")["split"].unique().map(list)) == {
        "patient0001": ["train"],
        "patient0002": ["train"],
        "patient0003": ["val"],
        "patient0004": ["test"],
    }
    row = table.iloc[7]
    assert row["case_id"] == "patient0002_4CH_ES"
    assert (decode_png(row["image"]) == echo(13)[0]).all()
    assert (decode_png(row["mask"]) == echo(13)[1]).all()
    assert facts == read_metadata(path)
    assert facts["labels"] == {"BACKGROUND": 0, "LV": 1, "MYO": 2, "LA": 3}
    assert facts["cases"] == {"train": 8, "val": 4, "test": 4}
    assert facts["patients"] == {"train": 2, "val": 1, "test": 1}
    assert facts["skipped"] == facts["notes"] == []
    assert facts["source"] == str(camus_config.source)
    assert facts["synthetic"] is False


def test_all_problems_are_reported_at_once_and_nothing_is_written(
    camus_config: CamusDataset, tmp_path: Path
) -> None:
    expected = break_files(camus_config.source)
    path = tmp_path / "out" / "camus.parquet"
    path.parent.mkdir()
    path.write_bytes(b"older")
    with pytest.raises(BadFilesError) as caught:
        prepare("camus", camus_config, path, skip_bad=False, threads=2)
    assert "or with datasets.camus.skip_bad: true in params.yaml" in str(caught.value)
    problems = caught.value.problems
    assert len(problems) == len(expected)
    for broken, reason in expected.items():
        assert [reason in text for text in problems if text.startswith(f"{broken}: ")] == [True]
    assert list(path.parent.iterdir()) == [path]
    assert path.read_bytes() == b"older"


def test_skip_bad_skips_and_lists_bad_files(camus_config: CamusDataset, tmp_path: Path) -> None:
    expected = break_files(camus_config.source)
    path = tmp_path / "camus.parquet"
    prepare("camus", camus_config, path, skip_bad=True, threads=2)
    assert list(read_prepared(path)["case_id"]) == [
        "patient0002_4CH_ES",
        "patient0004_2CH_ED",
        "patient0004_2CH_ES",
        "patient0004_4CH_ED",
        "patient0004_4CH_ES",
    ]
    skipped = read_metadata(path)["skipped"]
    assert {text.split(": ")[0] for text in skipped} == expected.keys()


def test_no_remaining_case_is_an_error(camus_config: CamusDataset, tmp_path: Path) -> None:
    for cfg in camus_config.source.glob("database_nifti/*/Info_*.cfg"):
        cfg.write_text("")
    with pytest.raises(InputError, match=r"no case is left(.|\n)*Info_2CH\.cfg: is empty"):
        prepare("camus", camus_config, tmp_path / "d.parquet", skip_bad=True, threads=2)
    assert not (tmp_path / "d.parquet").exists()


def test_unwritable_output_is_named(camus_config: CamusDataset, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"d\.parquet: cannot be written"):
        prepare("camus", camus_config, tmp_path / "file/d.parquet", skip_bad=False, threads=2)


def test_same_source_gives_the_same_digest(camus_config: CamusDataset, tmp_path: Path) -> None:
    for name, threads in (("a", 1), ("b", 4)):
        prepare("camus", camus_config, tmp_path / name, skip_bad=False, threads=threads)
    assert file_digest(tmp_path / "a") == file_digest(tmp_path / "b")
    write_nifti(
        camus_config.source / "database_nifti/patient0001/patient0001_2CH_ED.nii.gz", echo(99)[0]
    )
    prepare("camus", camus_config, tmp_path / "c", skip_bad=False, threads=2)
    assert file_digest(tmp_path / "a") != file_digest(tmp_path / "c")


def test_without_lists_patients_are_split_at_random(
    camus_config: CamusDataset, tmp_path: Path
) -> None:
    shutil.rmtree(camus_config.source / "database_split")
    facts = prepare("camus", camus_config, tmp_path / "d", skip_bad=False, threads=2)
    assert facts["patients"] == {"train": 2, "val": 1, "test": 1}
    assert facts["cases"] == {"train": 8, "val": 4, "test": 4}
    assert facts["split"]["lists"] is False


def test_notes_are_printed_with_an_error(camus_config: CamusDataset, tmp_path: Path) -> None:
    source = camus_config.source
    (source / "database_nifti/patient0001/old_2CH.nii.gz").touch()
    (source / "database_nifti/patient0002/patient0002_4CH_ED_gt.nii.gz").write_bytes(b"")
    write_nifti(source / "database_nifti/patient0003/patient0003_2CH_ED_gt.nii.gz", 0 * echo()[1])
    notes: list[str] = []
    with pytest.raises(BadFilesError, match="patient0002_4CH_ED_gt"):
        prepare("camus", camus_config, tmp_path / "d", skip_bad=False, threads=2, notes=notes)
    assert any("old_2CH.nii.gz" in note for note in notes)
    assert "patient0003_2CH_ED: its mask is empty" in notes
    whole = camus_config.model_copy(update={"frames": 20})  # but there are no sequences
    notes = []
    with pytest.raises(InputError, match="half_sequence"):
        prepare("camus", whole, tmp_path / "d", skip_bad=False, threads=2, notes=notes)
    assert any("old_2CH.nii.gz" in note for note in notes)


def test_implausible_scale_is_noted(camus_config: CamusDataset, tmp_path: Path) -> None:
    def rescale(patient: str, views: str, factor: float) -> None:
        for path in camus_config.source.glob(f"*/{patient}/*_{views}_*.nii.gz"):
            image = nib.load(path)
            affine = image.affine @ np.diag([factor, factor, 1, 1])
            nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), path)

    rescale("patient0001", "?CH", 3.25)  # an LV 227 mm long
    rescale("patient0002", "2CH", 1.6)
    notes = prepare("camus", camus_config, tmp_path / "d", skip_bad=False, threads=2)["notes"]
    assert len(notes) == 2
    assert all(f"patient0001_{view}_{phase}" in notes[0] for view in ("2CH", "4CH")
               for phase in ("ED", "ES"))  # fmt: skip
    assert "227 mm" in notes[0]
    assert notes[1].startswith("patient0002: ")


def test_a_given_spacing_is_recorded(camus_config: CamusDataset, tmp_path: Path) -> None:
    for path in camus_config.source.rglob("*.nii.gz"):
        nib.save(nib.Nifti1Image(np.asarray(nib.load(path).dataobj), np.eye(4)), path)
    with pytest.raises(BadFilesError) as caught:
        prepare("camus", camus_config, tmp_path / "d", skip_bad=False, threads=2)
    assert len(caught.value.problems) == 16  # a mask needs no scale
    configured = camus_config.model_copy(update={"spacing": SPACING})
    facts = prepare("camus", configured, tmp_path / "d", skip_bad=False, threads=2)
    table = read_prepared(tmp_path / "d")
    assert set(table["spacing_row"]) == {SPACING[0]}
    assert set(table["spacing_col"]) == {SPACING[1]}
    assert read_metadata(tmp_path / "d")["given_spacing"] == list(SPACING)
    (note,) = [note for note in facts["notes"] if "datasets.camus.spacing" in note]
    assert "and 8 more" in note  # one note for 16 images


def test_all_patients_in_the_training_list(camus_config: CamusDataset, tmp_path: Path) -> None:
    names = [f"patient{number:04d}" for number in range(1, 5)]
    write_list(camus_config.source, "training", names)
    for name in ("validation", "testing"):
        (camus_config.source / f"database_split/subgroup_{name}.txt").unlink()
    facts = prepare("camus", camus_config, tmp_path / "d", skip_bad=False, threads=2)
    assert facts["patients"] == {"train": 4, "val": 0, "test": 0}
    (note,) = facts["notes"]
    assert "val and test are empty" in note
    assert "method: random" in note


def test_mmode_keeps_the_windows_of_an_animal_together(
    mmode_config: MmodeDataset, tmp_path: Path
) -> None:
    black = np.zeros((24, 40), np.uint8)
    Image.fromarray(black).save(mmode_config.source / "mask/a2_w1.png")
    Image.fromarray(60 * echo()[1]).save(mmode_config.source / "mask/a1_w0.png")
    facts = prepare("mmode", mmode_config, tmp_path / "d", skip_bad=False, threads=2)
    table = read_prepared(tmp_path / "d")
    assert set(table.groupby("patient")["split"].nunique()) == {1}
    assert Counter(table["split"]) == {"train": 2, "val": 2, "test": 2}
    assert (decode_png(table["mask"][0]) == (echo(0)[1] == 1)).all()
    assert (table["spacing_row"] == mmode_config.mm_per_row).all()
    assert (table["spacing_col"] == mmode_config.s_per_column).all()
    assert facts["notes"] == [
        "a1_w0: its mask has 4 gray levels; those above 90, half of the maximum, are read as LV",
        "a2_w1: its mask is empty",
    ]
    assert facts["labels"] == {"BACKGROUND": 0, "LV": 1}


def test_command(
    mmode_config: MmodeDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["datasets"]["mmode"] |= {"source": "mmode", "mm_per_row": 0.1}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.chdir(tmp_path)
    (mmode_config.source / "mask/a0_w0.png").unlink()
    with pytest.raises(BadFilesError, match=r"mask/a0_w0\.png: is missing"):
        main(["mmode"])
    assert not Path("data/prepared/mmode.parquet").exists()
    main(["mmode", "--skip-bad"])
    assert len(read_prepared("data/prepared/mmode.parquet")) == 5
    said = capsys.readouterr().out
    assert "left out: mmode/mask/a0_w0.png: is missing" in said
    assert "data/prepared/mmode.parquet" in said

    Path("data/prepared/mmode.parquet").unlink()  # without the option, as a pipeline runs it
    params["datasets"]["mmode"]["skip_bad"] = True
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    main(["mmode"])
    assert len(read_prepared("data/prepared/mmode.parquet")) == 5


def test_copied_phantoms_are_marked_as_synthetic(params: Params, tmp_path: Path) -> None:
    for folder in ("camus", "mmode"):
        (tmp_path / folder).mkdir()
    write_camus(tmp_path / "camus", CamusPhantoms(patients=3, half_sequences=0, seed=5), workers=1)
    write_mmode(
        tmp_path / "mmode",
        MmodePhantoms(animals=3, windows_per_animal=1, window=192, seed=5),
        workers=1,
    )
    for dataset in ("camus", "mmode"):
        source = (tmp_path / dataset).rename(tmp_path / f"moved_{dataset}")
        config = getattr(params.datasets, dataset).model_copy(update={"source": source})
        facts = prepare(dataset, config, tmp_path / "d", skip_bad=False, threads=2)
        assert facts["synthetic"] is True
        assert facts["notes"] == []
        assert "seed 5" in (source / "PHANTOM").read_text()


@pytest.mark.slow
def test_real_release(params: Params, tmp_path: Path) -> None:
    source = real_data("HEARTSEG_CAMUS_ROOT")
    config = params.datasets.camus.model_copy(update={"source": source})
    facts = prepare("camus", config, tmp_path / "d", skip_bad=False, threads=2)
    assert facts["patients"] == {"train": 250, "val": 50, "test": 0}
    assert sum(facts["cases"].values()) == 1198
    assert facts["skipped"] == []
    assert "patient0039: no 4CH ED, 4CH ES" in facts["notes"]
    table = read_prepared(tmp_path / "d")
    assert table["spacing_row"].between(0.1, 1).all()
    assert table["spacing_col"].between(0.1, 1).all()
    assert table["reference_ef"].between(5, 90).all()
    assert set(table["quality"]) == {"Good", "Medium", "Poor"}
    cases = {case.case_id: case for case in camus.survey(source, use_lists=True).cases}
    for row in table.iloc[::200].itertuples():
        sample = cases[row.case_id].read()
        assert (decode_png(row.image) == sample.image).all()
        assert (decode_png(row.mask) == sample.mask).all()
