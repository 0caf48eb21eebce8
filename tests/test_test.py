"""`heartseg test` with a threshold instead of a trained network."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from heartseg import test
from heartseg.config.params import load_params
from heartseg.errors import InputError
from heartseg.evaluation.folder import measure_folder, overall
from heartseg.models.inference import PackagedModel, log_packaged
from heartseg.models.trained import build_model
from heartseg.tracking import pulled, registry
from tests.data.raw import SPACING, echo, write_nifti, write_release
from tests.examples import ROOT
from tests.registered import threshold_weights
from tests.tracking.stores import _cold_store, _own_environment, new_run, store

__all__ = ["_cold_store", "_own_environment", "store"]

MODEL = "models:/heartseg-mmode/1"
METADATA = {"dataset": "mmode", "recipe": {"model": {"in_channels": 1}}}
SIZE = 32


class Bright(torch.nn.Module):
    """LV where the gray value is above the mean of `normalise`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that no registry has to be started for."""
    bright = PackagedModel(Bright(), SIZE).eval()
    model = pulled.PulledModel(lambda images: bright(torch.from_numpy(images)).numpy(), METADATA)
    monkeypatch.setattr(pulled, "pull", lambda uri, name: model)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two windows of 32 x 32: one half found right and a quarter wrong, one empty and found so."""
    monkeypatch.chdir(ROOT)  # where params.yaml is
    image, mask = np.full((SIZE, SIZE), 10, np.uint8), np.zeros((SIZE, SIZE), np.uint8)
    for name, bright, drawn in (
        ("a_w0", (slice(0, 16), slice(0, 24)), (slice(0, 16), slice(8, 32))),
        ("a_w1", (slice(0, 0), slice(0, 0)), (slice(0, 0), slice(0, 0))),
    ):
        for kind, pixels, where, value in (
            ("img", image, bright, 250),
            ("mask", mask, drawn, 255),
        ):
            (tmp_path / kind).mkdir(exist_ok=True)
            picture = pixels.copy()
            picture[where] = value
            Image.fromarray(picture).save(tmp_path / kind / f"{name}.png")
    return tmp_path


@pytest.mark.usefixtures("model")
def test_metrics_by_hand(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test.main([MODEL, str(folder), "--out", str(folder / "deep/cases.csv")])
    table = pd.read_csv(folder / "deep/cases.csv").set_index("case_id")
    # 16 rows: 24 columns found, 24 true, 16 of them shared, 8 + 8 wrong
    assert table.loc["a_w0", "dice"] == pytest.approx(2 * 16 / 48)
    assert table.loc["a_w0", "iou"] == pytest.approx(16 / 32)
    assert table.loc["a_w0", "mse"] == pytest.approx(16 * 16 / SIZE**2)
    assert table.loc["a_w1", ["dice", "iou", "mse"]].tolist() == [1, 1, 0]
    found = overall(table.reset_index())
    mean = found.loc[("LV", "mean of images"), ["dice", "iou", "mse"]]
    assert mean.tolist() == pytest.approx([(2 / 3 + 1) / 2, 0.75, 0.125])
    pixels = found.loc[("LV", "all pixels"), ["dice", "iou", "mse"]]
    assert pixels.tolist() == pytest.approx([2 / 3, 0.5, 0.125])
    printed = capsys.readouterr().out
    assert f"{MODEL} on 2 image(s) of {folder}" in printed
    assert "0.8333" in printed


@pytest.mark.usefixtures("model")
def test_notes_are_those_of_prepare_and_are_told_with_an_error_too(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test.main([MODEL, str(folder)])
    assert "note: a_w1: its mask is empty" in capsys.readouterr().out
    (folder / "img/a_w0.png").write_bytes(b"")
    with pytest.raises(InputError):
        test.main([MODEL, str(folder)])
    assert "note: a_w1: its mask is empty" in capsys.readouterr().out


def test_a_camus_folder_without_scale_takes_that_of_params(tmp_path: Path) -> None:
    source = write_release(tmp_path / "release", patients=2)
    image = source / "database_nifti/patient0001/patient0001_2CH_ED.nii.gz"
    write_nifti(image, echo()[0], np.eye(4))
    write_nifti(image.with_name("patient0001_2CH_ED_gt.nii.gz"), echo()[1], np.eye(4))
    config = load_params(ROOT / "params.yaml").datasets.camus
    metadata = METADATA | {"dataset": "camus"}
    threshold = pulled.PulledModel(lambda images: images[:, 0] // 200, metadata)
    notes: list[str] = []
    with pytest.raises(InputError, match=r"patient0001_2CH_ED.*datasets\.camus\.spacing"):
        measure_folder(threshold, config, source, notes)
    told = config.model_copy(update={"spacing": SPACING})
    assert len(measure_folder(threshold, told, source, notes)) == 8 * 4
    assert any("datasets.camus.spacing" in note for note in notes)


@pytest.mark.usefixtures("model")
def test_without_a_file_the_rows_are_printed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test.main([MODEL, str(folder)])
    printed = capsys.readouterr().out
    assert "a_w0" in printed
    assert "0.6667" in printed


@pytest.mark.usefixtures("model")
def test_bad_files_are_all_named_and_nothing_is_written(folder: Path) -> None:
    (folder / "mask/a_w1.png").unlink()
    (folder / "img/a_w0.png").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        test.main([MODEL, str(folder), "--out", str(folder / "cases.csv")])
    assert f"{folder / 'mask/a_w1.png'}: is missing" in str(caught.value)
    assert f"{folder / 'img/a_w0.png'}: is empty" in str(caught.value)
    assert not (folder / "cases.csv").exists()


@pytest.mark.usefixtures("model")
def test_file_names_need_not_tell_the_animal(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("img", "mask"):
        for number, path in enumerate(sorted((folder / kind).iterdir())):
            path.rename(path.with_name(f"({number}) --.png"))
    test.main([MODEL, str(folder)])
    assert "on 2 image(s)" in capsys.readouterr().out


def test_a_model_of_sequences_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = {"dataset": "mmode", "recipe": {"model": {"in_channels": 20}}}
    model = pulled.PulledModel(lambda images: images[:, 0] // 200, metadata)
    monkeypatch.setattr(pulled, "pull", lambda uri, name: model)
    with pytest.raises(InputError, match=r"sequences of 20 frames.*heartseg evaluate"):
        test.main([MODEL, str(folder)])


@pytest.mark.usefixtures("model")
def test_a_folder_without_masks_is_refused(folder: Path) -> None:
    shutil.rmtree(folder / "mask")
    with pytest.raises(InputError, match="no folder mask"):
        test.main([MODEL, str(folder)])


@pytest.mark.slow
@pytest.mark.usefixtures("_own_environment")
def test_a_registered_model(
    folder: Path,
    store: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    client = registry.use_store(store)
    run_id = new_run(store)
    recipe = load_params(ROOT / "params.yaml").recipe("mmode").model_dump(mode="json")
    recipe |= {"model": recipe["model"] | {"filters": 1, "kernel": 3}, "input_size": SIZE}
    weights = threshold_weights()
    one = {"classifier.weight": torch.ones(1, 1, 1, 1), "classifier.bias": torch.zeros(1)}
    bright, _ = build_model(recipe, weights | one)
    facts = METADATA | {"recipe": recipe}
    info = log_packaged(bright, 1, name="bright", run_id=run_id, metadata=facts)
    registry.register_version(client, "heartseg-mmode", run_id, info.model_uri, {})
    mlflow.set_tracking_uri(None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    test.main([MODEL, str(folder)])
    assert "0.8333" in capsys.readouterr().out
