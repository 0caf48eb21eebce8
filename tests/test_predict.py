"""`heartseg predict` with a real registered model: a threshold instead of a trained network."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlflow
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from heartseg import predict
from heartseg.errors import InputError
from heartseg.models.packaged import PackagedModel, log_packaged
from heartseg.tracking import registry
from tests.tracking.stores import _cold_store, _own_environment, new_run

pytestmark = pytest.mark.slow

__all__ = ["_cold_store", "_own_environment"]

MODEL = "models:/heartseg-camus@champion"
WIDTH, DEPTH = 40, 24
# Rotated about two axes, another spacing on each, and an origin: nothing cancels out.
OBLIQUE = np.array(
    [
        [0.25881905, -0.38637033, 0.0, 11.5],
        [0.22414387, 0.06004, -0.68, -7.25],
        [0.06699, 0.0179, 0.91, 3.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)


class Threshold(torch.nn.Module):
    """Label 1 where the gray value is above the mean of `normalise`, at the network's own size."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([-x, x, -10 - x.abs(), -10 - x.abs()], dim=1)


@pytest.fixture(scope="session")
def registered(tmp_path_factory: pytest.TempPathFactory, _cold_store: Path) -> str:
    """URI of a store that has the model as champion."""
    path = tmp_path_factory.mktemp("registry") / "mlflow.db"
    shutil.copy(_cold_store, path)
    uri = f"sqlite:///{path}"
    client = registry.use_store(uri)
    run_id = new_run(uri)
    recipe = {"model": {"in_channels": 1}, "loss": "ce_dice"}
    # resized to its own size an image of 32 x 32 stays as it is
    info = log_packaged(
        PackagedModel(Threshold(), 32).eval(),
        1,
        name="threshold",
        run_id=run_id,
        metadata={"dataset": "camus", "recipe": recipe},
    )
    version = registry.register_version(client, "heartseg-camus", run_id, info.model_uri, {})
    client.set_registered_model_alias("heartseg-camus", "champion", version)
    mlflow.set_tracking_uri(None)
    return uri


@pytest.fixture(autouse=True)
def _in_the_store(
    _own_environment: None, registered: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registered)
    monkeypatch.chdir(tmp_path)


def blob(height: int = DEPTH, width: int = WIDTH) -> np.ndarray:
    """uint8 (H, W): a bright block in one quarter, so that no axis can be swapped or flipped."""
    pixels = np.full((height, width), 20, np.uint8)
    pixels[height // 8 : height // 2, width // 2 : width - width // 8] = 220
    return pixels


def run(*inputs: Path, options: tuple[str, ...] = ()) -> Path:
    predict.main([MODEL, *(str(path) for path in inputs), "--out", "out", *options])
    return Path("out")


def agreement(labels: np.ndarray, pixels: np.ndarray) -> float:
    """Dice of label 1 against the bright block; the network's small grid blurs its edges."""
    block = pixels > 100
    return 2 * np.sum((labels == 1) & block) / (np.sum(labels == 1) + block.sum())


def test_uncertainty_lies_on_the_grid_of_its_image(tmp_path):
    """It is at its highest where the gray value is at the threshold, and told per frame."""
    pixels = np.stack([blob(), np.full((DEPTH, WIDTH), 114, np.uint8)])  # 114.5: at the threshold
    nib.save(nib.Nifti1Image(pixels.transpose(2, 1, 0), OBLIQUE), tmp_path / "x.nii.gz")
    out = run(tmp_path / "x.nii.gz", options=("--uncertainty",))
    plain, doubt = nib.load(out / "x_seg.nii.gz"), nib.load(out / "x_uncertainty.nii.gz")
    assert doubt.get_data_dtype() == np.float32
    np.testing.assert_allclose(doubt.affine, plain.affine)
    found = np.asarray(doubt.dataobj).transpose(2, 1, 0)
    assert found.shape == pixels.shape
    assert 0 <= found.min() <= found.max() <= 1
    assert found[1] == pytest.approx(0.5, abs=1e-3)  # two of four labels, alike
    assert found[0].min() < 0.25
    table = pd.read_csv(out / "uncertainty.csv")
    assert list(table["frame"]) == [1, 2]
    heart = np.asarray(plain.dataobj).transpose(2, 1, 0)[0] > 0
    assert table["uncertainty"][0] == pytest.approx(found[0][heart].mean(), abs=1e-5)
    assert table["uncertainty"][1] == 1.0  # no heart found


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("third_axis", [(), (1,), (1, 1)])
def test_a_label_map_lies_on_the_grid_of_its_image(tmp_path, ending, third_axis):
    pixels = blob()
    image = nib.Nifti1Image(pixels.T.reshape(WIDTH, DEPTH, *third_axis), OBLIQUE)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(OBLIQUE, code=2)
    image.set_qform(OBLIQUE, code=1)
    image.header["cal_max"] = 255
    nib.save(image, tmp_path / f"x{ending}")
    stored = nib.load(tmp_path / f"x{ending}")

    out = run(tmp_path / f"x{ending}")

    assert sorted(path.name for path in out.iterdir()) == ["x_overlay.png", "x_seg.nii.gz"]
    labels = nib.load(out / "x_seg.nii.gz")
    assert labels.shape == stored.shape
    assert labels.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(labels.affine, stored.affine)
    np.testing.assert_array_equal(labels.get_qform(), stored.get_qform())
    assert (labels.header["sform_code"], labels.header["qform_code"]) == (2, 1)
    assert labels.header.get_zooms() == stored.header.get_zooms()
    assert labels.header.get_xyzt_units() == ("mm", "sec")
    values = np.asanyarray(labels.dataobj)
    assert values.dtype == np.uint8  # no slope and intercept on the label values
    assert set(np.unique(values)) == {0, 1}
    assert agreement(values.reshape(WIDTH, DEPTH).T, pixels) > 0.9


@pytest.mark.slow
def test_a_sequence_is_segmented_frame_by_frame(tmp_path):
    """Longer than a batch, each frame with its own block; scaled integers as scanners store."""
    frames = [np.roll(blob(), -2 * step, axis=1) for step in range(predict.FRAMES_AT_ONCE + 3)]
    data = np.stack([frame.T for frame in frames], axis=-1).astype(np.int16)
    image = nib.Nifti1Image(data, OBLIQUE)
    image.header.set_zooms((0.3, 0.7, 0.02))
    nib.save(image, tmp_path / "sequence.nii.gz")

    out = run(tmp_path / "sequence.nii.gz")

    labels = nib.load(out / "sequence_seg.nii.gz")
    assert labels.shape == data.shape
    assert labels.header.get_zooms() == nib.load(tmp_path / "sequence.nii.gz").header.get_zooms()
    values = np.asanyarray(labels.dataobj)
    for step, frame in enumerate(frames):
        assert agreement(values[:, :, step].T, frame) > 0.9


# --- curves of a sequence -------------------------------------------------------------------

STEM = "patient0001_2CH_half_sequence"
HEIGHTS = (14, 12, 10, 6)  # rows of the bright block in each frame


def shrinking(value: int) -> np.ndarray:
    """Frames (T, H, W): a block ten columns wide that gets shorter, of `value` on black."""
    frames = np.zeros((len(HEIGHTS), DEPTH, WIDTH), np.uint8)
    for frame, height in zip(frames, HEIGHTS, strict=True):
        frame[4 : 4 + height, 12:22] = value
    return frames


def save_sequence(path: Path, frames: np.ndarray, spacing: tuple[float, float]) -> None:
    nib.save(nib.Nifti1Image(frames.T, np.diag([-spacing[1], -spacing[0], 1, 1])), path)


@pytest.mark.slow
def test_curves_of_a_sequence_and_its_reference(tmp_path, capsys):
    for name, value in ((STEM, 220), (f"{STEM}_gt", 1)):
        save_sequence(tmp_path / f"{name}.nii.gz", shrinking(value), (2.0, 1.0))
    (tmp_path / "Info_2CH.cfg").write_text("ED: 1\nES: 4\nNbFrame: 4\nFrameRate: 50\n")

    out = run(tmp_path)

    assert sorted(path.name for path in out.iterdir()) == [
        *(f"{STEM}_curves.csv", f"{STEM}_curves.png", f"{STEM}_overlay.png"),
        *(f"{STEM}_seg.nii.gz", "sequences.csv"),
    ]
    curves = pd.read_csv(out / f"{STEM}_curves.csv", keep_default_na=False)
    assert list(curves["frame"]) == [1, 2, 3, 4]
    assert list(curves["time_s"]) == pytest.approx([0, 0.02, 0.04, 0.06])
    areas = [0.2 * height for height in HEIGHTS]  # ten columns, 2 mm² a pixel
    assert list(curves["lv_area_cm2_reference"]) == pytest.approx(areas)
    assert list(curves["lv_area_cm2"]) == pytest.approx(areas, rel=0.15)
    assert list(curves["phase_reference"]) == ["ED", "", "", "ES"]
    assert curves["dice_LV"].min() > 0.85
    (row,) = pd.read_csv(out / "sequences.csv").to_dict("records")
    assert row["sequence"] == STEM
    assert (row["ed_frame"], row["es_frame"]) == (1, 4)
    edv, esv = row["edv_ml_reference"], row["esv_ml_reference"]
    assert row["ef_percent_reference"] == pytest.approx(100 * (edv - esv) / edv)
    assert f"{STEM}: EDV" in capsys.readouterr().out


def test_a_reference_on_another_grid_is_told_and_left_out(tmp_path):
    save_sequence(tmp_path / f"{STEM}.nii.gz", shrinking(220), (2.0, 1.0))
    save_sequence(tmp_path / f"{STEM}_gt.nii.gz", shrinking(1)[:, :-1], (2.0, 1.0))

    with pytest.raises(InputError, match=rf"{STEM}_gt\.nii\.gz: is \(4, 23, 40\)"):
        run(tmp_path)

    curves = pd.read_csv(Path("out") / f"{STEM}_curves.csv")
    assert "dice_LV" not in curves
    assert len(curves) == 4


def test_a_model_of_sequences_segments_both_ends(tmp_path, monkeypatch):
    """Its first channel is the frame to segment; each channel is brighter than the one before."""

    def predict_stacks(stacks: np.ndarray) -> np.ndarray:
        assert stacks.shape == (2, 20, DEPTH, WIDTH)
        assert stacks.dtype == np.uint8
        assert (stacks[1] == stacks[0, ::-1]).all()
        return (stacks[:, 0] > 100).astype(np.uint8)

    metadata = {"dataset": "camus", "recipe": {"model": {"in_channels": 20}}}
    pulled = registry.Pulled(predict_stacks, metadata)
    monkeypatch.setattr(registry, "pull", lambda *_: pulled)
    save_sequence(tmp_path / f"{STEM}.nii.gz", shrinking(220), (2.0, 1.0))
    save_sequence(tmp_path / f"{STEM}_gt.nii.gz", shrinking(1), (2.0, 1.0))
    Image.fromarray(blob()).save(tmp_path / "single.png")

    with pytest.raises(InputError, match=r"single\.png: the model takes sequences"):
        run(tmp_path)

    labels = nib.load(Path("out") / f"{STEM}_seg.nii.gz")
    assert labels.shape == (WIDTH, DEPTH, 2)
    values = np.asanyarray(labels.dataobj).transpose(2, 1, 0)
    assert (values == shrinking(1)[[0, -1]]).all()
    curves = pd.read_csv(Path("out") / f"{STEM}_curves.csv")
    assert list(curves["frame"]) == [1, 4]
    assert list(curves["dice_LV"]) == [1, 1]


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_a_png_gives_a_png(tmp_path, mode):
    pixels = blob(32, 32)
    sixteen = Image.fromarray(pixels.astype(np.uint16) * 250)
    image = sixteen if mode == "I;16" else Image.fromarray(pixels).convert(mode)
    image.save(tmp_path / "window.png")

    out = run(tmp_path / "window.png")

    labels = np.array(Image.open(out / "window_seg.png"))
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, pixels > 100)
    assert Image.open(out / "window_overlay.png").width > 100


def test_bad_files_are_reported_and_the_others_segmented(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(blob()).save(folder / "good.png")
    (folder / "broken.png").write_bytes(b"no picture")
    nib.save(nib.Nifti1Image(blob().T, OBLIQUE), folder / "cut.nii.gz")
    whole = (folder / "cut.nii.gz").read_bytes()
    (folder / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 3, 2)), OBLIQUE), folder / "volumes.nii")
    nib.save(nib.Nifti1Image(np.full((4, 4), np.nan), OBLIQUE), folder / "nan.nii")
    (folder / "empty.nii").touch()
    (tmp_path / "notes.txt").touch()

    with pytest.raises(InputError) as caught:
        run(folder, tmp_path / "notes.txt", tmp_path / "absent.nii")

    lines = str(caught.value).splitlines()[1:]
    for name, reason in {
        "broken.png": "cannot be read",
        "cut.nii.gz": "cannot be read",
        "volumes.nii": "(4, 4, 3, 2)",
        "nan.nii": "NaN",
        "empty.nii": "cannot be read",
        "notes.txt": "neither NIfTI nor PNG",
        "absent.nii": "does not exist",
    }.items():
        assert any(f"/{name}: " in line and reason in line for line in lines), name
    assert len(lines) == 7
    assert [path.name for path in Path("out").rglob("*_seg*")] == ["good_seg.png"]


def places(*inputs: Path) -> dict[str, str]:
    found, problems = predict.find_files(inputs, Path("out"))
    assert problems == []
    return {str(file.relative_to(Path.cwd())): str(place) for file, place in found.items()}


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def test_folders_are_searched_without_ground_truth_and_earlier_output():
    touch("in/b/x.nii.gz", "in/a/x.nii", "in/x_gt.nii.gz", "in/x_seg.nii.gz", "in/x_overlay.png")
    touch("in/notes.txt", "in/mouse_gt3_w01.PNG")

    assert places(Path("in")) == {
        "in/a/x.nii": "a/x",
        "in/b/x.nii.gz": "b/x",
        "in/mouse_gt3_w01.PNG": "mouse_gt3_w01",
    }


def test_the_output_folder_is_not_searched():
    touch("scan.png", "out/old.png")

    assert places(Path()) == {"scan.png": "scan"}


def test_equal_names_in_different_folders_stay_apart():
    touch("one/x.nii", "two/deep/x.nii", "two/y.nii")

    assert places(Path("one/x.nii"), Path("two"), Path("two/y.nii")) == {
        "one/x.nii": "one/x",
        "two/deep/x.nii": "two/deep/x",
        "two/y.nii": "two/y",
    }


def test_equal_names_of_different_kinds_stay_apart():
    touch("in/x.nii", "in/x.nii.gz", "in/x.png", "in/y.png")

    assert places(Path("in")) == {
        "in/x.nii": "x.nii",
        "in/x.nii.gz": "x.nii.gz",
        "in/x.png": "x.png",
        "in/y.png": "y",
    }


def test_without_a_store_the_user_is_told_where_to_run(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    touch("x.png")

    with pytest.raises(InputError, match=r"params\.yaml.*MLFLOW_TRACKING_URI"):
        run(Path("x.png"))

    assert not Path("mlflow.db").exists()
