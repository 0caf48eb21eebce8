"""`heartseg pull` and `heartseg predict` with a real registry, and without one."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import onnxruntime
import pandas as pd
import pytest
import scipy.special
import scipy.stats
from PIL import Image
from safetensors.torch import load_file

from heartseg import predict, pull
from heartseg.errors import InputError
from heartseg.models import export as exported
from heartseg.models import package
from heartseg.models.inference import MEAN, STD
from tests.clones import environment
from tests.prediction.test_segmenter import blob, chambers, write_frames
from tests.registered import CARD, MODEL, register_threshold, registered
from tests.tracking.stores import _cold_store, _own_environment

pytestmark = pytest.mark.slow

__all__ = ["_cold_store", "_own_environment", "registered"]

HEIGHTS = (36, 26, 35, 25)  # of the chambers that write_frames draws, in the order of the files


@pytest.fixture(scope="session")
def pulled(registered: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the registered model, pulled with unpickling disabled."""
    folder = tmp_path_factory.mktemp("pulled") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", registered)
        patch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
        pull.main([MODEL, "--to", str(folder)])
    return folder


@pytest.fixture(autouse=True)
def _own_folder(_own_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "predictions.json"
    }


# --- pull ---------------------------------------------------------------------------------


def test_a_pulled_folder_holds_all_and_checks_by_itself(pulled):
    assert {path.name for path in pulled.iterdir()} == {*package.FILES, package.CHECKSUMS}
    assert (pulled / "model_card.md").read_text() == CARD
    facts = json.loads((pulled / "model.json").read_text())
    assert (facts["model"], facts["version"]) == (MODEL, "heartseg-camus version 1")
    (inputs,) = json.loads(facts["signature"]["inputs"])
    assert inputs["tensor-spec"] == {"dtype": "uint8", "shape": [-1, 1, -1, -1]}
    assert load_file(pulled / "weights.safetensors")["classifier.weight"].shape == (4, 1, 1, 1)
    session = onnxruntime.InferenceSession(pulled / "model.onnx")
    image = blob(32, 32)
    (labels,) = session.run(None, {"images": image[None, None]})
    assert (labels == (image > 115)).all()
    assert session.get_inputs()[0].shape == ["batch", 1, "height", "width"]


@pytest.mark.parametrize("name", package.FILES_READ)
def test_a_tampered_file_is_refused(pulled, tmp_path, name):
    folder = tmp_path / "copy"
    shutil.copytree(pulled, folder)
    Image.fromarray(blob()).save(tmp_path / "a.png")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)

    with pytest.raises(InputError, match=rf"{name} has changed"):
        predict.main([str(folder), "a.png", "--out", "out"])
    (folder / name).unlink()
    with pytest.raises(InputError, match=name):
        predict.main([str(folder), "a.png", "--out", "out"])
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(InputError, match="is not a pulled model"):
        predict.main([str(folder), "a.png", "--out", "out"])
    assert not Path("out").exists()


def test_pull_replaces_only_what_it_made(pulled, registered, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registered)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").touch()
    shutil.copytree(pulled, tmp_path / "copy")

    with pytest.raises(InputError, match="other files"):
        pull.main([MODEL, "--to", "mine", "--overwrite"])
    with pytest.raises(InputError, match="--overwrite"):
        pull.main([MODEL, "--to", "copy"])
    before = contents(tmp_path)
    # after a failure while writing, only the earlier folder is left
    monkeypatch.setattr(exported, "TOLERANCE", -1.0)
    with pytest.raises(InputError, match="ONNX Runtime and torch differ"):
        pull.main([MODEL, "--to", "copy", "--overwrite"])
    assert contents(tmp_path) == before
    monkeypatch.setattr(exported, "write_package", lambda *_: None)  # ready, however empty
    pull.main([MODEL, "--to", "copy", "--overwrite"])
    assert list((tmp_path / "copy").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "mine"]


# --- predict ------------------------------------------------------------------------------


def test_uri_and_folder_give_the_same_without_a_pickle(pulled, registered, tmp_path, monkeypatch):
    """A folder is used without a store and without unpickling."""
    grays = (20, 220, 220, 20)
    write_frames(tmp_path / "in/patient0001", "patient0001", ("2CH", "4CH"), grays)
    (tmp_path / "in/bad.nii").touch()

    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", registered)
        with pytest.raises(InputError, match=r"1 input\(s\).*\n.*bad\.nii: is empty"):
            predict.main([MODEL, "in", "--out", "by_uri"])
    with monkeypatch.context() as patch:
        for unpickles in ("torch.load", "pickle.load", "pickle.loads"):
            patch.setattr(unpickles, None)
        with pytest.raises(InputError, match=r"1 input\(s\).*\n.*bad\.nii: is empty"):
            predict.main([str(pulled), "in", "--out", "by_folder"])

    found = contents(Path("by_folder"))
    assert found == contents(Path("by_uri"))
    assert sorted(found) == sorted(
        ["clinical.csv", "images.csv"]
        + [
            f"patient0001/patient0001_{view}_{phase}_{end}"
            for view in ("2CH", "4CH")
            for phase in ("ED", "ES")
            for end in ("seg.nii.gz", "overlay.png")
        ]
    )
    table = pd.read_csv("by_folder/images.csv")
    # the threshold cannot separate cavity and wall; it is applied at 32 x 32
    walls = [1.5 * np.sum((chambers(height) == 1) | (chambers(height) == 2)) for height in HEIGHTS]
    assert list(table["lv_area_mm2"]) == pytest.approx(walls, rel=0.15)


def test_uncertainty_by_uri_and_folder(pulled, registered, tmp_path, monkeypatch, capsys):
    """A second run adds the uncertainty and keeps the label maps."""
    pixels = blob(32, 32)  # the size of the network, so that each pixel's logits are known
    (tmp_path / "in").mkdir()
    nib.save(nib.Nifti1Image(pixels.T, np.diag([-1.0, -1.5, 1, 1])), "in/a.nii.gz")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registered)

    predict.main([str(pulled), "in", "--out", "by_folder"])
    without = contents(Path("by_folder"))
    for model, out in ((str(pulled), "by_folder"), (MODEL, "by_uri")):
        predict.main([model, "in", "--out", out, "--uncertainty"])
    with_it = contents(Path("by_folder"))
    assert with_it == contents(Path("by_uri"))
    assert set(with_it) == {*without, "a_uncertainty.nii.gz"}
    assert with_it["a_seg.nii.gz"] == without["a_seg.nii.gz"]
    x = (pixels - MEAN) / STD
    logits = np.stack([-x, x, 0 * x - 1000, 0 * x - 1000])
    expected = scipy.stats.entropy(scipy.special.softmax(logits, axis=0), base=4)
    found = np.asanyarray(nib.load("by_folder/a_uncertainty.nii.gz").dataobj)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.T, expected, atol=1e-6)
    told = pd.read_csv("by_folder/images.csv")
    assert told["uncertainty"][0] == pytest.approx(expected[pixels > 115].mean(), abs=1e-6)
    before = pd.read_csv(io.BytesIO(without["images.csv"]))
    pd.testing.assert_frame_equal(told.drop(columns="uncertainty"), before)

    capsys.readouterr()
    predict.main([str(pulled), "in", "--out", "by_folder", "--uncertainty"])
    assert "0 file(s) segmented into by_folder, 1 segmented earlier" in capsys.readouterr().out
    assert contents(Path("by_folder")) == with_it


def test_two_models_are_not_mixed(pulled, registered, tmp_path, monkeypatch, capsys):
    database = Path(registered.removeprefix("sqlite:///"))
    shutil.copy(database, tmp_path / "other.db")
    shutil.copytree(database.with_name("mlartifacts"), tmp_path / "mlartifacts")
    register_threshold(f"sqlite:///{tmp_path}/other.db", shift=9.0)
    Image.fromarray(blob(32, 32)).save(tmp_path / "a.png")
    predict.main([str(pulled), "a.png", "--out", "out"])
    assert np.array(Image.open("out/a_seg.png")).any()

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    with pytest.raises(InputError, match=r"results of another model \(.*model\)"):
        predict.main([MODEL, "a.png", "--out", "out"])
    predict.main([MODEL, "a.png", "--out", "out", "--overwrite"])
    assert not np.array(Image.open("out/a_seg.png")).any()
    capsys.readouterr()
    predict.main([MODEL, "a.png", "--out", "out"])
    assert "0 file(s) segmented into out, 1 segmented earlier" in capsys.readouterr().out


def test_a_ray_cluster_gives_the_same_results(pulled, tmp_path, monkeypatch):
    for number in range(6):
        patient = f"patient{number:04d}"
        write_frames(tmp_path / "in" / patient, patient, ("2CH", "4CH"))
    (tmp_path / "in/bad.nii").touch()

    with pytest.raises(InputError, match=r"1 input.*\n.*bad\.nii"):
        predict.main([str(pulled), "in", "--out", "here", "--uncertainty"])
    command = [sys.executable, "-m", "heartseg.predict", str(pulled), "in", "--out", "there"]
    done = subprocess.run(
        [*command, "--uncertainty", "--ray"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "bad.nii" in done.stderr
    assert "Traceback" not in done.stderr

    assert len(pd.read_csv("there/clinical.csv")) == 6
    assert len(list(Path("there").rglob("*_uncertainty.nii.gz"))) == 24
    assert contents(Path("there")) == contents(Path("here"))


def test_a_missing_model_is_reported(tmp_path, monkeypatch, registered):
    Image.fromarray(blob()).save(tmp_path / "a.png")
    for model, reason in (
        (".", "is not a pulled model"),
        ("heartseg-camus", "neither"),
        (MODEL, r"params\.yaml.*MLFLOW_TRACKING_URI"),
    ):
        with pytest.raises(InputError, match=reason):
            predict.main([model, "a.png", "--out", "out"])
    assert not Path("mlflow.db").exists()
