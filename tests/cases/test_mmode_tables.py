"""A real M-mode strip with several kinds of tables and masks, in every command.

The strip is a part of the annotated one of HEARTSEG_MMODE_ROOT. The model thresholds gray values.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from heartseg import recording, test, windows
from heartseg.config.params import load_params
from heartseg.data.prepared import decode_png, read_prepared
from heartseg.errors import BadFilesError, InputError
from heartseg.prepare import prepare
from heartseg.tracking import pulled
from heartseg.tracking.pulled import PulledModel
from tests.cases.dicom import write_dicom
from tests.examples import ROOT, real_data

pytestmark = pytest.mark.slow

MODEL = "models:/heartseg-mmode@champion"
MM, S = 0.0206, 0.00083334
HEAD = "recording,animal,mm_per_row,s_per_column\n"
TABLE = f"{HEAD}strip,m1,{MM},{S}\n"
TOP, BOTTOM, COLUMNS = 300, 940, 800
"""Part of the image with two beats, because drawing the whole takes long."""


@pytest.fixture(scope="module", autouse=True)
def _model() -> Iterator[None]:
    metadata = {"dataset": "mmode", "recipe": {"model": {"in_channels": 1}}}

    def predict(pictures: np.ndarray) -> np.ndarray:
        return (pictures[:, 0] < 30).astype(np.uint8)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pulled, "pull", lambda uri, model: PulledModel(predict, metadata))
        patch.chdir(ROOT)  # where params.yaml is
        yield


def picture(kind: str) -> np.ndarray:
    path = real_data("HEARTSEG_MMODE_ROOT") / f"annotation_example_{kind}.png"
    return np.array(Image.open(path).convert("L"))[TOP:BOTTOM, :COLUMNS]


@pytest.fixture(scope="module")
def strip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the strip, its traces and recordings.csv."""
    folder = tmp_path_factory.mktemp("mmode")
    Image.fromarray(picture("img")).save(folder / "strip.png")
    traces = pd.read_csv(real_data("HEARTSEG_MMODE_ROOT") / "annotation_example_traces.csv")
    traces[["upper_row", "lower_row"]] -= TOP
    traces[traces["col"] < COLUMNS].to_csv(folder / "strip_traces.csv", index=False)
    (folder / "recordings.csv").write_text(TABLE)
    return folder


@dataclass
class Results:
    """Results of all commands for a folder with recordings.

    Attributes:
        windows: the folder that `windows` wrote.
        prepared: rows of the dataset that `prepare` makes of it.
        measured: recordings.csv of `recording`.
        tested: what `test` says of the windows.
    """

    windows: Path
    prepared: pd.DataFrame
    measured: pd.DataFrame
    tested: pd.DataFrame


def results(folder: Path, out: Path) -> Results:
    windows.main([str(folder), "--out", str(out / "windows")])
    recording.main([MODEL, str(folder), "--out", str(out / "recording")])
    measured = pd.read_csv(out / "recording/recordings.csv")
    prepared, tested = of_windows(out / "windows", out)
    return Results(out / "windows", prepared, measured, tested)


def of_windows(folder: Path, out: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the prepared dataset of a folder of windows, and the output of `test`."""
    prepared, _ = prepare_windows(folder, out)
    test.main([MODEL, str(folder), "--out", str(out / "test.csv")])
    return prepared, pd.read_csv(out / "test.csv")


def prepare_windows(folder: Path, out: Path) -> tuple[pd.DataFrame, list[str]]:
    """Return rows and notes."""
    config = load_params(ROOT / "params.yaml").datasets.mmode
    config = config.model_copy(update={"source": folder})
    facts = prepare("mmode", config, out / "mmode.parquet", skip_bad=False, threads=2)
    return read_prepared(out / "mmode.parquet"), facts["notes"]


@pytest.fixture(scope="module")
def reference(strip: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    found = results(strip, tmp_path_factory.mktemp("reference"))
    assert len(found.prepared) > 0
    assert found.measured["lvidd_mm"].notna().all()
    assert found.tested["dice"].between(0.1, 0.99).all()
    return found


@pytest.fixture
def source(strip: Path, tmp_path: Path) -> Path:
    """Return a copy of the folder that tests may modify."""
    return shutil.copytree(strip, tmp_path / "source")


def check_same(found: Results, reference: Results) -> None:
    for name in ("prepared", "measured", "tested"):
        pd.testing.assert_frame_equal(getattr(found, name), getattr(reference, name))
    tables = [pd.read_csv(one.windows / "windows.csv") for one in (found, reference)]
    pd.testing.assert_frame_equal(*tables)


@pytest.mark.parametrize(
    "table",
    [
        f"{HEAD}strip.png,m1,{MM},{S}\n",  # the name with its ending
        # as a spreadsheet leaves it in which a decimal comma was put for every underscore
        f"{HEAD}strip,m1,{MM},{S}\n".replace(",", ";").replace("_", ",").replace(".", ","),
    ],
    ids=["name with ending", "semicolons and decimal commas"],
)
def test_table_variants(source: Path, reference: Results, tmp_path: Path, table: str) -> None:
    (source / "recordings.csv").write_text(table)
    check_same(results(source, tmp_path), reference)


def test_16_bits_in_every_command(source: Path, reference: Results, tmp_path: Path) -> None:
    def deepen(path: Path) -> None:
        Image.fromarray(np.array(Image.open(path)).astype(np.uint16) * 257).save(path)

    deepen(source / "strip.png")
    found = results(source, tmp_path)
    check_same(found, reference)
    for path in (found.windows / "img").iterdir():
        deepen(path)
    prepared, tested = of_windows(found.windows, tmp_path)
    pd.testing.assert_frame_equal(prepared, reference.prepared)
    pd.testing.assert_frame_equal(tested, reference.tested)


def test_impossible_scale_is_refused(source: Path, reference: Results, tmp_path: Path) -> None:
    """Milliseconds are written as seconds."""
    wrong = f"{1000 * S:g}"
    (source / "recordings.csv").write_text(f"{HEAD}strip,m1,{MM},{wrong}\n")
    refused = rf"recordings\.csv: s_per_column .*{wrong}.*\bseconds.*milliseconds.*{S:.6g}"
    with pytest.raises(InputError, match=refused):
        windows.main([str(source), "--out", str(tmp_path / "out")])
    with pytest.raises(InputError, match=refused):
        recording.main([MODEL, str(source), "--out", str(tmp_path / "out")])
    shutil.copytree(reference.windows, tmp_path / "windows")
    table = pd.read_csv(tmp_path / "windows/windows.csv").assign(s_per_column=1000 * S)
    table.to_csv(tmp_path / "windows/windows.csv", index=False)
    with pytest.raises(BadFilesError, match=r"windows\.csv: s_per_column .*milliseconds"):
        prepare_windows(tmp_path / "windows", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "windows"]


def test_row_without_recording_is_refused(source: Path, tmp_path: Path) -> None:
    (source / "recordings.csv").write_text(TABLE.replace("strip,", "stripe,"))
    for main, model in ((windows.main, []), (recording.main, [MODEL])):
        with pytest.raises(InputError, match=r"recordings\.csv: .*'stripe'"):
            main([*model, str(source), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_mask_suffix_in_capitals(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "strip_traces.csv").unlink()
    Image.fromarray(picture("mask")).save(source / "strip_Mask.png")
    found = results(source, tmp_path)
    assert "not used" not in capsys.readouterr().out
    assert list(found.measured["name"]) == ["strip"]
    table = pd.read_csv(found.windows / "windows.csv").set_index("name")
    drawn = picture("mask") > 0
    assert len(found.prepared) == len(table) > 0
    for _, row in found.prepared.iterrows():
        first_row, first_column, size = table.loc[
            row["case_id"], ["first_row", "first_column", "size"]
        ].astype(int)
        part = drawn[first_row : first_row + size, first_column : first_column + size]
        assert part.any()
        assert np.array_equal(decode_png(row["mask"]) > 0, part)


def test_a_mask_of_three_levels_is_noted_by_every_command(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inside = (picture("mask") > 0).astype(np.uint8)
    three = inside + 2 * (np.roll(inside, 80, axis=0) > inside).astype(np.uint8)
    (source / "strip_traces.csv").unlink()
    Image.fromarray(three).save(source / "strip_mask.png")
    windows.main([str(source), "--out", str(tmp_path / "windows")])
    recording.main([MODEL, str(source), "--out", str(tmp_path / "recording")])
    output = capsys.readouterr().out
    assert output.count("strip_mask.png: has 3 gray levels") == 2
    for kind, pixels in (("img", picture("img")), ("mask", three)):
        (tmp_path / "in" / kind).mkdir(parents=True)
        Image.fromarray(pixels[:, :640]).save(tmp_path / f"in/{kind}/a_w0.png")
    _, notes = prepare_windows(tmp_path / "in", tmp_path)
    (note,) = [note for note in notes if "gray levels" in note]
    test.main([MODEL, str(tmp_path / "in")])
    assert f"note: {note}" in capsys.readouterr().out


def test_16_bits_of_a_dicom_file_that_hold_8(
    source: Path, reference: Results, tmp_path: Path
) -> None:
    (source / "strip.png").unlink()
    (source / "recordings.csv").write_text("recording,animal\nstrip,m1\n")
    region = (0, COLUMNS - 1, 0, BOTTOM - TOP - 1)
    deep = picture("img").astype("<u2")
    write_dicom(source / "strip.dcm", deep, region, mm=MM, seconds=S)
    found = results(source, tmp_path)
    check_same(found, reference)
    joined = np.array(Image.open(found.windows / "strips/strip.png"))
    assert np.array_equal(joined, picture("img"))
