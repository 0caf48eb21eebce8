"""Uncertainty maps: their values, their grid, and when they are computed again."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image
from safetensors.torch import save

from heartseg.models.package import Package
from heartseg.prediction.files import find_jobs
from heartseg.prediction.segmenter import Segmenter
from tests.prediction.test_segmenter import CAMUS, OBLIQUE, blob, bright, segment
from tests.registered import threshold_recipe, threshold_weights


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def graded(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`bright`, and probabilities of the first two labels of four: less sure where darker."""
    first = 0.5 + images[:, 0].astype(np.float32) / 510
    return bright(images), np.stack([first, 1 - first, 0 * first, 0 * first], axis=1)


def entropy_of(pixels: np.ndarray) -> np.ndarray:
    first = 0.5 + pixels / 510
    return scipy.stats.entropy([first, 1 - first], base=4)


def test_uncertainty_lies_on_the_grid_of_its_image_beside_the_same_label_map(tmp_path):
    frames = np.stack([blob(), np.roll(blob(), 3, axis=0)])
    image = nib.Nifti1Image(frames.T, OBLIQUE)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((0.3, 0.7, 0.02))
    nib.save(image, tmp_path / "x.nii.gz")
    Image.fromarray(blob()).save(tmp_path / "y.png")
    mmode = {**CAMUS, "dataset": "mmode"}  # nothing is measured
    segment(tmp_path, metadata=mmode)
    without = {path: path.read_bytes() for path in Path("out").iterdir()}

    first = segment(tmp_path, predict=graded, metadata=mmode, uncertainty=True)

    assert (first.done, first.skipped) == (2, 0)  # the uncertainty is missing
    assert {path: path.read_bytes() for path in without} == without
    stored, label_map = nib.load("out/x_uncertainty.nii.gz"), nib.load("out/x_seg.nii.gz")
    assert stored.get_data_dtype() == np.float32
    assert stored.shape == label_map.shape
    assert stored.header.get_zooms() == label_map.header.get_zooms()
    assert stored.header.get_xyzt_units() == ("mm", "sec")
    np.testing.assert_array_equal(stored.affine, label_map.affine)
    values = np.asanyarray(stored.dataobj)
    np.testing.assert_allclose(values.T, entropy_of(frames), atol=1e-6)
    picture = np.array(Image.open("out/y_uncertainty.png"))
    assert picture.dtype == np.uint8
    np.testing.assert_allclose(picture, 255 * entropy_of(blob()), atol=0.5001)
    heart = float(entropy_of(np.array(220.0)))
    assert [(row["image"], row["frame"]) for row in first.images] == [("x", 1), ("x", 2), ("y", 1)]
    doubts = [row["uncertainty"] for row in first.images]
    assert doubts == pytest.approx([heart, heart, np.rint(255 * heart) / 255], abs=1e-6)

    again = segment(tmp_path, predict=graded, metadata=mmode, uncertainty=True)
    assert (again.done, again.skipped, again.images) == (0, 2, first.images)


def test_missing_or_outdated_uncertainty_is_computed_again(tmp_path):
    Image.fromarray(blob()).save(tmp_path / "a.png")
    picture, label_map = Path("out/a_uncertainty.png"), Path("out/a_seg.png")

    def run(**options) -> tuple[int, int]:
        outcome = segment(tmp_path / "a.png", **options)
        assert outcome.problems == []
        return outcome.done, outcome.skipped

    asked = {"predict": graded, "uncertainty": True}
    assert run(**asked) == (1, 0)
    picture.unlink()
    assert run() == (0, 1)
    assert run(**asked) == (1, 0)
    label_map.unlink()
    assert run(**asked) == (1, 0)
    assert run(**asked) == (0, 1)
    # overwriting without uncertainty deletes that of the earlier model
    now = picture.stat().st_mtime
    os.utime(picture, (now - 9, now - 9))
    assert run(overwrite=True, made_before=now - 5) == (1, 0)
    assert not picture.exists()
    assert run(made_before=now - 5, **asked) == (1, 0)
    # another grid is reported, as for a label map
    Image.fromarray(blob(30, 50)).save(picture)
    (problem,) = segment(tmp_path / "a.png", **asked).problems
    assert "a_uncertainty.png: has shape (1, 30, 50)" in problem


def test_the_label_map_comes_after_the_uncertainty(tmp_path, monkeypatch):
    nib.save(nib.Nifti1Image(blob().T, OBLIQUE), tmp_path / "a.nii.gz")
    really = nib.save

    def full(image, path) -> None:
        if image.get_data_dtype() == np.float32:
            raise OSError(28, "No space left on device")
        really(image, path)

    monkeypatch.setattr(nib, "save", full)
    outcome = segment(tmp_path / "a.nii.gz", predict=graded, uncertainty=True)

    assert "No space left" in outcome.problems[0]
    assert outcome.done == 0
    assert [path.name for path in Path("out").iterdir()] == ["a_overlay.png"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("logits", "expected", "found"),
    # if all are equal, the first label is chosen: the background, so there is no heart
    [([0.0] * 4, 1.0, 1.0), ([-200.0, 200.0, -200.0, -200.0], 0.0, 0.0), ([0, 9, 9, 0], 0.5, 0.5)],
)
def test_uniform_logits_have_uncertainty_1_and_one_hot_ones_0(tmp_path, logits, expected, found):
    weights = threshold_weights()
    weights["classifier.weight"].zero_()
    weights["classifier.bias"] = torch.tensor([float(value) for value in logits])
    recipe = threshold_recipe()
    package = Package("constant", save(weights), {"dataset": "camus", "recipe": recipe})
    nib.save(nib.Nifti1Image(blob().T, np.diag([0.5, 0.5, 1, 1])), tmp_path / "a.nii.gz")
    jobs, _ = find_jobs([str(tmp_path / "a.nii.gz")], Path("out"))

    outcome = Segmenter.of(package, {"out": Path("out"), "uncertainty": True})(jobs)

    values = np.asanyarray(nib.load("out/a_uncertainty.nii.gz").dataobj)
    np.testing.assert_allclose(values, expected, atol=2e-3)
    assert 0 <= values.min() <= values.max() <= 1
    assert outcome.images[0]["uncertainty"] == pytest.approx(found, abs=2e-3)
