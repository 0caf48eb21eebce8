"""`heartseg windows`: from recordings to a folder that `prepare` reads."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydicom import dcmread

from heartseg import windows
from heartseg.config.params import Params
from heartseg.data.phantoms import recording as phantom
from heartseg.data.splits import split_patients
from heartseg.data.strips.traces import fill_between
from heartseg.data.windows import reader as mmode
from heartseg.errors import InputError
from heartseg.prepare import prepare
from heartseg.tracking import pulled
from tests.examples import ROOT, real_data

pytestmark = pytest.mark.slow

SEED = 7


@cache
def truth(number: int) -> phantom.PhantomRecording:
    return phantom.make_recording(SEED, number)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    phantom.write_recordings(folder, SEED)
    return folder


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # where params.yaml is


@pytest.fixture(scope="module")
def out(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "windows"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        windows.main([str(recordings), "--out", str(folder)])
    return folder


def png(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def test_the_reader_reads_it_back(out: Path, params: Params) -> None:
    survey = mmode.survey(params.datasets.mmode.model_copy(update={"source": out}))
    assert survey.problems == []
    assert survey.notes == []
    table = pd.read_csv(out / "windows.csv").set_index("name")
    recordings = {f"recording{n}": truth(n) for n in (1, 2, 3)}
    animals = dict(zip(recordings, phantom.ANIMALS, strict=True))
    assert {case.case_id for case in survey.cases} == set(table.index)
    sizes = set()
    for case in survey.cases:
        sample, row = case.read(), table.loc[case.case_id]
        real = recordings[row["recording"]]
        rows = slice(row["first_row"], row["first_row"] + row["size"])
        columns = slice(row["first_column"], row["first_column"] + row["size"])
        assert np.array_equal(sample.image, real.strip[rows, columns])
        mask = fill_between(real.upper, real.lower, phantom.ROWS)[rows, columns]
        # the traces are given by a point in every 6 columns
        assert (sample.mask.astype(bool) != mask).mean() < 0.01
        assert sample.spacing == pytest.approx((phantom.MM_PER_ROW, phantom.S_PER_COLUMN))
        assert sample.patient == animals[row["recording"]]
        sizes.add((row["recording"], row["size"]))
    assert len(sizes) == len({size for _, size in sizes}) == 3  # one per recording, all different


def test_only_good_spans_are_trained_on_and_bad_ones_are_kept_apart(out: Path) -> None:
    table = pd.read_csv(out / "windows.csv", keep_default_na=False)
    labelled = table[table["recording"] == "recording1"]
    assert set(labelled["quality"]) == {"good"}
    assert (labelled["first_column"] + labelled["size"]).max() * phantom.S_PER_COLUMN <= 1.8
    assert set(table.loc[table["recording"] != "recording1", "quality"]) == {""}
    bad = pd.read_csv(out / "bad/windows.csv")
    assert set(bad["quality"]) == {"bad"}
    assert bad["first_column"].min() * phantom.S_PER_COLUMN >= 1.8
    assert sorted(path.stem for path in (out / "bad/img").iterdir()) == sorted(bad["name"])
    assert not (out / "bad/mask").exists()


def test_joined_strips_are_written_to_draw_traces_on(out: Path) -> None:
    assert sorted(path.name for path in (out / "strips").iterdir()) == [
        "recording1.png",
        "recording2.png",
    ]
    assert np.array_equal(png(out / "strips/recording2.png"), truth(2).strip)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("method", ["random", "kfold"])
def test_no_recording_and_no_animal_is_in_two_splits(
    out: Path, params: Params, method: str, seed: int
) -> None:
    changes = {"method": method, "seed": seed, "folds": 2, "fold": seed % 2}
    split = params.datasets.mmode.split.model_copy(update=changes)
    config = params.datasets.mmode.model_copy(update={"source": out, "split": split})
    cases = mmode.survey(config).cases
    split_of = split_patients({case.patient for case in cases}, split, None)
    recording_of = pd.read_csv(out / "windows.csv").set_index("name")["recording"]
    places: dict[str, set[str]] = {}
    for case in cases:
        places.setdefault(recording_of[case.case_id], set()).add(split_of[case.patient])
    assert all(len(splits) == 1 for splits in places.values())
    assert places["recording1"] == places["recording2"]  # of one mouse
    assert len(set.union(*places.values())) == 2


def test_prepare_takes_it_and_knows_that_it_is_synthetic(
    out: Path, params: Params, tmp_path: Path
) -> None:
    config = params.datasets.mmode.model_copy(update={"source": out})
    facts = prepare("mmode", config, tmp_path / "m.parquet", skip_bad=False, threads=1)
    assert facts["synthetic"]
    assert sum(facts["cases"].values()) == len(list((out / "img").iterdir()))


def test_nothing_of_the_header_is_kept(recordings: Path, tmp_path: Path) -> None:
    dataset = dcmread(recordings / "recording2.dcm")
    dataset.PatientName, dataset.PatientID = "ZEBEDEE^QUENTIN", "ZQ-4711"
    dataset.PatientBirthDate = "19630229"
    (tmp_path / "in").mkdir()
    dataset.save_as(tmp_path / "in/r.dcm")
    windows.main([str(tmp_path / "in"), "--out", str(tmp_path / "out")])
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) > 3
    for path in files:
        content = path.read_bytes()
        assert not any(secret in content for secret in (b"ZEBEDEE", b"QUENTIN", b"4711", b"1963"))
        if path.suffix == ".png":
            assert Image.open(path).info == {}


def write_strip(folder: Path, name: str = "r") -> np.ndarray:
    """A PNG recording of 2.4 s without anything beside it."""
    folder.mkdir(exist_ok=True)
    strip = truth(3).strip[:, :1200]
    Image.fromarray(strip).save(folder / f"{name}.png")
    (folder / "recordings.csv").write_text(
        f"recording,animal,mm_per_row,s_per_column\n{name},m,0.04,0.002\n"
    )
    return strip


def test_without_traces_windows_are_for_annotation(tmp_path: Path) -> None:
    strip = write_strip(tmp_path / "in")
    windows.main([str(tmp_path / "in"), "--out", str(tmp_path / "out")])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["unannotated"]
    table = pd.read_csv(tmp_path / "out/unannotated/windows.csv")
    row = table.iloc[1]
    assert np.array_equal(
        png(tmp_path / f"out/unannotated/img/{row['name']}.png"),
        strip[
            row["first_row"] : row["first_row"] + row["size"],
            row["first_column"] : row["first_column"] + row["size"],
        ],
    )


def test_hearts_of_humans_have_windows_of_their_beats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same strip 6 times as slow: in mice no beat would be so long."""
    write_strip(tmp_path / "in")
    windows.main([str(tmp_path / "in"), "--out", str(tmp_path / "mouse")])
    (tmp_path / "in/recordings.csv").write_text(
        "recording,animal,mm_per_row,s_per_column\nr,m,0.2,0.012\n"
    )
    text = (ROOT / "params.yaml").read_text()
    monkeypatch.chdir(tmp_path)
    sizes = {}
    for species in ("mouse", "human"):
        Path("params.yaml").write_text(text.replace("species: mouse", f"species: {species}"))
        windows.main([str(tmp_path / "in"), "--out", f"as_{species}"])
        sizes[species] = set(pd.read_csv(f"as_{species}/unannotated/windows.csv")["size"])
    assert sizes["human"] == set(pd.read_csv("mouse/unannotated/windows.csv")["size"])
    assert sizes["mouse"] != sizes["human"]


def test_labels_of_windows_choose_among_them(tmp_path: Path) -> None:
    write_strip(tmp_path / "in")
    windows.main([str(tmp_path / "in"), "--out", str(tmp_path / "first")])
    names = pd.read_csv(tmp_path / "first/unannotated/windows.csv")["name"]
    (tmp_path / "in/quality.csv").write_text(
        f"window,quality\n{names[0]},good\n{names[2]},bad\n{names[3]},good\n"
    )
    windows.main([str(tmp_path / "in"), "--out", str(tmp_path / "second")])
    good = pd.read_csv(tmp_path / "second/unannotated/windows.csv")["name"]
    assert good.tolist() == [names[0], names[3]]
    assert pd.read_csv(tmp_path / "second/bad/windows.csv")["name"].tolist() == [names[2]]


def test_a_quality_model_judges_strips_without_labels(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bad in the model's eyes: what is mostly black."""

    def classify(images: np.ndarray) -> np.ndarray:
        bad = (images[:, 0].max(axis=1) == 0).mean(axis=1) > 0.5
        return np.broadcast_to(bad[:, None, None], images[:, 0].shape).astype(np.uint8)

    facts = {"dataset": "mmode-quality", "recipe": {"model": {"in_channels": 1}}}
    monkeypatch.setattr(pulled, "pull", lambda uri, name: pulled.PulledModel(classify, facts))
    source = tmp_path / "in"
    shutil.copytree(recordings, source)
    pixels = png(source / "recording3.png")
    pixels[:, 300:800] = 0
    Image.fromarray(pixels).save(source / "recording3.png")
    windows.main([str(source), "--out", str(tmp_path / "out"), "--quality", "models:/q@champion"])
    table = pd.read_csv(tmp_path / "out/windows.csv").set_index("recording").loc["recording3"]
    ends = table["first_column"] + table["size"]
    assert not ((ends > 340) & (table["first_column"] < 760)).any()
    assert (table["quality"] == "good").all()
    bad = pd.read_csv(tmp_path / "out/bad/windows.csv").set_index("recording")
    judged = bad.loc[["recording3"]]
    assert judged["first_column"].between(250, 800).all()
    assert len(bad.loc[["recording1"]])  # by its labels


def test_the_box_cuts_picture_and_traces_alike(tmp_path: Path) -> None:
    strip = write_strip(tmp_path / "in")
    framed = np.full((strip.shape[0] + 30, strip.shape[1] + 70), 255, np.uint8)
    framed[20:-10, 50:-20] = strip
    Image.fromarray(framed).save(tmp_path / "in/r.png")
    (tmp_path / "in/recordings.csv").write_text(
        "recording,animal,mm_per_row,s_per_column,first_row,last_row,first_column,last_column\n"
        f"r,m,0.04,0.002,20,{len(framed) - 11},50,{framed.shape[1] - 21}\n"
    )
    real = truth(3)
    traces = {"col": np.arange(1200) + 50}
    traces |= {"upper_row": real.upper[:1200] + 20, "lower_row": real.lower[:1200] + 20}
    pd.DataFrame(traces).to_csv(tmp_path / "in/r_traces.csv", index=False)
    windows.main([str(tmp_path / "in"), "--out", str(tmp_path / "out")])
    mask = fill_between(real.upper, real.lower, len(strip))
    table = pd.read_csv(tmp_path / "out/windows.csv")
    for _, row in table.iterrows():
        cut = (
            slice(row["first_row"], row["first_row"] + row["size"]),
            slice(row["first_column"], row["first_column"] + row["size"]),
        )
        assert np.array_equal(png(tmp_path / f"out/img/{row['name']}.png"), strip[cut])
        assert np.array_equal(png(tmp_path / f"out/mask/{row['name']}.png") > 0, mask[cut])


def test_a_gap_makes_strips_of_one_recording_and_animal(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strip = truth(1).strip
    frames = [strip[:, at : at + 600] for at in (0, 100, 800, 900)]
    (tmp_path / "in").mkdir()
    phantom.make_dicom(frames, 0.04, 0.002).save_as(tmp_path / "in/r.dcm", enforce_file_format=True)
    (tmp_path / "in/r_s2_traces.csv").write_text(
        "col,upper_row,lower_row\n0,80,160\n350,70,170\n699,80,160\n"
    )
    windows.main([str(tmp_path / "in"), "--out", str(tmp_path / "out")])
    assert "frames 2 and 3 do not overlap" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "out/windows.csv")
    assert set(table["recording"]) == set(table["animal"]) == {"r"}
    assert table["name"].str.startswith("r_s2_w").all()
    assert np.array_equal(png(tmp_path / "out/strips/r_s2.png"), strip[:, 800:1500])


def test_every_fault_is_told_at_once_and_nothing_is_written(
    recordings: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    write_strip(folder, "a")
    write_strip(folder, "b")
    (folder / "a_traces.csv").write_text("col,upper_row,lower_row\n0,9,2\n")
    (folder / "b.png").write_bytes(b"no picture")
    (folder / "c.dcm").write_bytes((recordings / "recording1.dcm").read_bytes()[:4000])
    (folder / "quality.csv").write_text("window,quality\na_w1,fine\n")
    with pytest.raises(InputError) as caught:
        windows.main([str(folder), "--out", str(tmp_path / "out")])
    text = str(caught.value)
    assert text.startswith("4 problem(s), nothing was written")
    for name in ("a_traces.csv", "b.png", "c.dcm", "quality.csv"):
        assert f"{folder / name}: " in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_an_existing_folder_is_left_alone(recordings: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(InputError, match="exists already"):
        windows.main([str(recordings), "--out", str(tmp_path)])


@pytest.mark.slow
def test_the_real_strips(tmp_path: Path) -> None:
    real = real_data("HEARTSEG_MMODE_ROOT")
    (tmp_path / "in").mkdir()
    for name in ("annotation_example_img.png", "annotation_example_traces.csv"):
        (tmp_path / "in" / name).symlink_to(real / name)
    (tmp_path / "in/long.png").symlink_to(real / "long_recording_unannotated.png")
    (tmp_path / "in/recordings.csv").write_text(  # the long one stands in a figure
        "recording,first_row,last_row,first_column,last_column\nlong,12,451,12,2500\n"
    )
    windows.main([str(tmp_path / "in"), "--out", str(tmp_path / "out")])
    table = pd.read_csv(tmp_path / "out/windows.csv")
    given = png(real / "annotation_example_mask.png") > 127
    assert len(table) == 5
    for _, row in table.iterrows():
        mask = png(tmp_path / f"out/mask/{row['name']}.png") > 0
        shown = slice(row["first_column"], row["first_column"] + row["size"])
        part = given[row["first_row"] : row["first_row"] + row["size"], shown]
        assert part.sum() == given[:, shown].sum()  # the whole heart
        assert 2 * (mask & part).sum() / (mask.sum() + part.sum()) > 0.998
    long = pd.read_csv(tmp_path / "out/unannotated/windows.csv")
    assert set(long["size"]) == {393}  # three beats of 131 columns
    assert len(long) == 12
