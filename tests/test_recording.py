"""`heartseg recording` from PNG files to tables, masks and figures; a threshold as the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from heartseg import recording
from heartseg.data.phantoms.recording import make_dicom, scroll
from heartseg.data.phantoms.strip import make_motion
from heartseg.errors import InputError
from heartseg.tracking import pulled
from heartseg.tracking.pulled import PulledModel
from tests.examples import ROOT, real_data

pytestmark = pytest.mark.slow

MM, S, RATE = 0.06, 0.0012, 480.0
MODEL = "models:/heartseg-mmode@champion"


@pytest.fixture(autouse=True)
def metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    metadata = {"dataset": "mmode", "recipe": {"model": {"in_channels": 3}}}

    def predict(windows: np.ndarray) -> np.ndarray:
        assert windows.shape[1] == 3
        return (windows[:, 0] < 60).astype(np.uint8)

    monkeypatch.setattr(pulled, "pull", lambda uri, model: PulledModel(predict, metadata))
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text((ROOT / "params.yaml").read_text())
    return metadata


def write_strip(name: str, columns: int = 1500) -> dict[str, float]:
    """A dark cavity between bright walls; returns its true medians."""
    motion = make_motion(np.random.default_rng(1), columns, 60 / RATE / S, 9.6)
    rows = (np.arange(160)[:, None] + 0.5) * MM
    cavity = (rows >= motion.upper) & (rows < motion.lower)
    speckle = np.random.default_rng(2).integers(0, 30, cavity.shape)
    Image.fromarray((np.where(cavity, 20, 180) + speckle).astype(np.uint8)).save(name)
    ed = (motion.diastoles > 0) & (motion.diastoles < columns)
    return {
        "lvidd": float(np.median(motion.diastolic[ed])),
        "lvids": float(np.median(motion.systolic[ed])),
        "rate": 60 / float(np.median(np.diff(motion.diastoles[ed]))) / S,
    }


def run(*arguments: str) -> pd.DataFrame:
    spacing = ["--mm-per-row", str(MM), "--s-per-column", str(S)]
    recording.main([MODEL, *arguments, "--out", "out", *spacing])
    return pd.read_csv("out/recordings.csv").set_index("name")


def test_a_recording_is_measured_and_written() -> None:
    truth = write_strip("mouse.png")
    row = run("mouse.png").loc["mouse"]
    assert sorted(p.name for p in Path("out").iterdir()) == [
        "mouse_beats.csv", "mouse_figure.png", "mouse_mask.png", "mouse_traces.csv",
        "recordings.csv",
    ]  # fmt: skip
    assert row["lvidd_mm"] == pytest.approx(truth["lvidd"], abs=MM)
    assert row["lvids_mm"] == pytest.approx(truth["lvids"], abs=MM)
    assert row["heart_rate_bpm"] == pytest.approx(truth["rate"], rel=0.02)
    assert row["used_fraction"] == 1.0
    beats = pd.read_csv("out/mouse_beats.csv")
    assert beats["lvidd_mm"].median() == pytest.approx(row["lvidd_mm"])
    assert beats["ef_teichholz_percent"].median() == pytest.approx(row["ef_teichholz_percent"])
    assert 60000 / beats["interval_to_next_beat_ms"].median() == pytest.approx(
        row["heart_rate_bpm"]
    )
    edv, lvidd = beats["edv_teichholz_ul"], beats["lvidd_mm"]
    np.testing.assert_allclose(edv.dropna(), (7 / (2.4 + lvidd) * lvidd**3).dropna())
    mask = np.array(Image.open("out/mouse_mask.png"))
    np.testing.assert_array_equal(mask > 0, np.array(Image.open("mouse.png")) < 60)
    traces = pd.read_csv("out/mouse_traces.csv")
    np.testing.assert_allclose(traces["lvid_mm"], (mask > 0).sum(axis=0) * MM, rtol=1e-4)
    assert Image.open("out/mouse_figure.png").width > 1000


def test_bad_spans_are_excluded_and_reported() -> None:
    write_strip("mouse.png")
    pixels = np.array(Image.open("mouse.png"))
    pixels[30:, 500:800] = 20  # no lower wall
    Image.fromarray(pixels).save("mouse.png")
    Path("quality.csv").write_text("recording,start_s,end_s,quality\nmouse,0.59,0.97,bad\n")
    row = run("mouse.png").loc["mouse"]
    assert row["bad_quality_fraction"] == pytest.approx(0.38 / (1500 * S), abs=0.001)
    beats = pd.read_csv("out/mouse_beats.csv")
    assert set(beats["piece"]) == {1, 2}
    assert not beats["systole_s"].between(0.59, 0.97).any()
    assert beats["heart_rate_bpm"].dropna().between(420, 540).all()
    Path("none.csv").write_text("recording,start_s,end_s,quality\n")
    assert run("mouse.png", "--quality", "none.csv").loc["mouse", "bad_quality_fraction"] == 0
    with pytest.raises(InputError, match=r"absent\.csv: does not exist"):
        run("mouse.png", "--quality", "absent.csv")


def test_labels_that_do_not_count_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    write_strip("mouse.png")
    Path("own.csv").write_text(
        "recording,window,start_s,end_s,quality\nmuose,,0.5,0.9,bad\n,mouse_w000100,,,bad\n"
    )
    row = run("mouse.png", "--quality", "own.csv").loc["mouse"]
    assert row["bad_quality_s"] == 0
    told = capsys.readouterr().out
    assert "muose" in told
    assert "own.csv: 1 label(s) of windows" in told

    Path("quality.csv").write_text("recording,start_s,end_s,quality\nother,0.5,0.9,bad\n")
    write_strip("other.png")
    run("mouse.png")  # one of a folder, whose labels stand together
    assert "other" not in capsys.readouterr().out


def quality_model(windows: np.ndarray) -> np.ndarray:
    """Bad where most of the columns are black."""
    bad = (windows[:, 0].max(axis=1) == 0).mean(axis=1) > 0.5
    return np.broadcast_to(bad[:, None, None], windows[:, 0].shape).astype(np.uint8)


def test_a_quality_model_finds_the_bad_spans(
    metadata: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_strip("mouse.png")
    pixels = np.array(Image.open("mouse.png"))
    pixels[:, 500:900] = 0
    Image.fromarray(pixels).save("mouse.png")
    segments = pulled.pull("", MODEL)
    model = "models:/heartseg-mmode-quality@champion"
    own = {"dataset": "mmode-quality", "recipe": {"model": {"in_channels": 1}}}
    models = {MODEL: segments, model: PulledModel(quality_model, own)}
    monkeypatch.setattr(pulled, "pull", lambda uri, name: models[name])

    row = run("mouse.png", "--quality", model).loc["mouse"]
    assert row["bad_quality_s"] == pytest.approx(400 * S, abs=0.07)  # a window lasts 0.375 s
    assert row["bad_quality_fraction"] == pytest.approx(row["bad_quality_s"] / (1500 * S))
    start, end = (float(text) for text in row["bad_spans_s"].split("-"))
    assert (start, end) == (pytest.approx(500 * S, abs=0.05), pytest.approx(900 * S, abs=0.05))
    assert row["quality_by"] == model
    beats = pd.read_csv("out/mouse_beats.csv")
    assert not beats["systole_s"].between(start, end).any()
    assert f"of bad quality by {model}" in capsys.readouterr().out

    Path("quality.csv").write_text("recording,start_s,end_s,quality\nmouse,0.1,0.2,bad\n")
    row = run("mouse.png", "--quality", model).loc["mouse"]
    assert (row["bad_quality_s"], row["quality_by"]) == (pytest.approx(0.1, abs=S), "quality.csv")
    assert "mouse: the labels of quality.csv" in capsys.readouterr().out
    models["models:/heartseg-mmode/1"] = segments
    with pytest.raises(InputError, match="heartseg-mmode-quality@"):
        run("mouse.png", "--quality", "models:/heartseg-mmode/1")


def test_human_hearts_have_human_units(capsys: pytest.CaptureFixture[str]) -> None:
    write_strip("heart.png")
    recording.main([MODEL, "heart.png", "--out", "out", "--species", "human",
                    "--mm-per-row", "0.6", "--s-per-column", "0.008"])  # fmt: skip
    row = pd.read_csv("out/recordings.csv").iloc[0]
    assert 25 < row["lvidd_mm"] < 50
    cm = pd.read_csv("out/heart_beats.csv")["lvidd_mm"] / 10
    assert row["edv_teichholz_ml"] == pytest.approx((7 / (2.4 + cm) * cm**3).median())
    assert 60 < row["heart_rate_bpm"] < 80
    assert "Check the scale" not in capsys.readouterr().out


def test_a_scale_that_no_heart_fits_is_refused() -> None:
    write_strip("mouse.png")
    with pytest.raises(InputError, match="mm-per-row"):
        recording.main([MODEL, "mouse.png", "--out", "out", "--mm-per-row", "0.6",
                        "--s-per-column", str(S)])  # fmt: skip


def test_errors_against_known_values_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    truth = write_strip("mouse.png")
    Path("recordings.csv").write_text(
        "recording,mm_per_row,s_per_column,lvidd_mm,lvids_mm,heart_rate_bpm\n"
        f"mouse,{MM},{S},{truth['lvidd']},{truth['lvids']},{truth['rate']}\n"
    )
    recording.main([MODEL, "mouse.png", "--out", "out"])
    text = capsys.readouterr().out
    for name in ("lvidd_mm", "lvids_mm", "fs_percent", "ef_teichholz_percent", "heart_rate_bpm"):
        assert f"  {name}: bias" in text
    row = pd.read_csv("out/recordings.csv").iloc[0]
    assert (row["mm_per_row"], row["s_per_column"]) == (MM, S)
    assert row["reference_lvidd_mm"] == pytest.approx(truth["lvidd"])


def test_strips_without_a_beat_give_no_values() -> None:
    Image.fromarray(np.full((160, 40), 180, np.uint8)).save("empty.png")
    write_strip("short.png")
    Image.open("short.png").crop((0, 0, 40, 160)).save("short.png")
    rows = run("empty.png", "short.png")
    assert np.isnan(rows["heart_rate_bpm"]).all()
    assert rows.loc["empty", "missing_fraction"] == 1.0
    assert (rows["complete_beats"] == 0).all()
    assert len(pd.read_csv("out/empty_beats.csv")) == 0


def test_a_dicom_file_is_measured_as_its_strip() -> None:
    write_strip("mouse.png")
    image = np.array(Image.open("mouse.png"))
    dataset = make_dicom(scroll(image, 400, 110), MM, S)
    dataset.save_as("scan.dcm", enforce_file_format=True)
    recording.main([MODEL, "scan.dcm", "--out", "out"])  # its own spacing
    scan = pd.read_csv("out/recordings.csv").iloc[0]
    png = run("mouse.png").loc["mouse"]
    for column in ("seconds", "lvidd_mm", "lvids_mm", "heart_rate_bpm", "sdnn_ms"):
        assert scan[column] == pytest.approx(png[column])


def test_files_named_by_their_uid_are_apart() -> None:
    write_strip("mouse.png")
    image = np.array(Image.open("mouse.png"))
    Path("in").mkdir()
    for name in ("1.2.840.1", "1.2.840.2", "1.2.840.3.dcm"):
        made = make_dicom(scroll(image, 400, 110), MM, S)
        made.save_as(f"in/{name}", enforce_file_format=True)
    assert list(run("in").index) == ["1.2.840.1", "1.2.840.2", "1.2.840.3"]
    assert Path("out/1.2.840.2_beats.csv").exists()


def test_faults_of_the_user_are_told(metadata: dict[str, Any]) -> None:
    write_strip("good.png")
    Path("bad.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"bad\.png: is not a NIfTI"):
        run("bad.png", "good.png")
    assert list(pd.read_csv("out/recordings.csv")["name"]) == ["good"]
    Path("twice").mkdir()
    write_strip("twice/good.png")
    with pytest.raises(InputError, match="has the same name"):
        run("good.png", "twice/good.png")
    with pytest.raises(InputError, match="--heart-rates 900 200"):
        run("good.png", "--heart-rates", "900", "200")
    metadata["dataset"] = "camus"
    with pytest.raises(InputError, match="heartseg-mmode@"):
        run("good.png")


@pytest.mark.slow
def test_the_real_long_recording_runs_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """A smoothed threshold finds the cavity in parts at most: what matters is that all ends."""
    from scipy import ndimage

    def predict(windows: np.ndarray) -> np.ndarray:
        smooth = ndimage.gaussian_filter(windows[:, 0].astype(float), (0, 6, 6))
        rows = np.arange(windows.shape[2])[:, None]
        return ((smooth < 14) & (rows > 60) & (rows < 270)).astype(np.uint8)

    metadata = {"dataset": "mmode", "recipe": {"model": {"in_channels": 1}}}
    monkeypatch.setattr(pulled, "pull", lambda uri, model: PulledModel(predict, metadata))
    path = real_data("HEARTSEG_MMODE_ROOT") / "long_recording_unannotated.png"
    Path("spans.csv").write_text(  # a legend, no heart
        "recording,start_s,end_s,quality\nlong_recording_unannotated,6.39,7.3,bad\n"
    )
    recording.main([MODEL, str(path), "--out", "out", "--mm-per-row", "0.0206395",
                    "--s-per-column", "0.00083334", "--quality", "spans.csv"])  # fmt: skip
    row = pd.read_csv("out/recordings.csv").iloc[0]
    assert row["bad_quality_fraction"] == pytest.approx(1 - 6.39 / (8691 * 0.00083334), abs=0.001)
    assert row["used_fraction"] > 0.5
    assert Image.open("out/long_recording_unannotated_figure.png").height > 1000
