"""Orientation, scale and colours of image files in all formats."""

from __future__ import annotations

import gzip
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from heartseg.data.images import read_images, read_labels
from heartseg.datasets.camus import Camus
from heartseg.errors import InputError

SPACING = (0.5, 0.75)
HEIGHT, WIDTH = 60, 40
AFFINE = np.diag([-SPACING[1], -SPACING[0], 1.0, 1.0])
"""Affine of the CAMUS release, whose axes are (lateral, depth)."""


def picture(frames: int = 1) -> np.ndarray:
    """Return noise uint8 (T, H, W), which changes with any flip or exchange of axes."""
    return np.random.default_rng(0).integers(0, 256, (frames, HEIGHT, WIDTH), dtype=np.uint8)


def released(frames: np.ndarray) -> nib.Nifti1Image:
    return nib.Nifti1Image(frames.transpose(2, 1, 0), AFFINE)


ORIENTATIONS = [
    np.array(list(zip(axes, signs, strict=True)))
    for axes in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=lambda o: str(o[:, 0] * o[:, 1]))
def test_affine_determines_the_axes(tmp_path: Path, orientation: np.ndarray) -> None:
    """Check all 48 orders and directions of the axes of a transverse plane, with saved labels."""
    frames = picture()
    stored = released(frames).as_reoriented(orientation)
    nib.save(stored, tmp_path / "a.nii.gz")
    images = read_images(tmp_path / "a.nii.gz")
    assert np.array_equal(images.frames, frames)
    assert images.spacing == SPACING
    images.save((frames > 100).astype(np.uint8), tmp_path / "labels.nii.gz")
    labels = nib.load(tmp_path / "labels.nii.gz")
    assert np.array_equal(labels.dataobj, np.asarray(stored.dataobj) > 100)
    assert np.array_equal(labels.affine, stored.affine)


def as_nifti2(path: Path, frames: np.ndarray) -> None:
    image = released(frames)
    nib.save(nib.Nifti2Image(image.dataobj, image.affine), path.with_suffix(".nii"))


def as_gzip_without_suffix(path: Path, frames: np.ndarray) -> None:
    path.with_suffix(".nii").write_bytes(gzip.compress(released(frames).to_bytes()))


def as_uncompressed_with_gzip_suffix(path: Path, frames: np.ndarray) -> None:
    path.with_suffix(".nii.gz").write_bytes(released(frames).to_bytes())


def as_three_gray_channels(path: Path, frames: np.ndarray) -> None:
    channels = np.repeat(frames.transpose(2, 1, 0), 3, axis=2)
    nib.save(nib.Nifti1Image(channels, AFFINE), path.with_suffix(".nii"))


def as_metaimage(path: Path, frames: np.ndarray) -> None:
    image = sitk.GetImageFromArray(frames)
    image.SetSpacing((SPACING[1], SPACING[0], 1.0))
    sitk.WriteImage(image, str(path.with_suffix(".mhd")), useCompression=True)


@pytest.mark.parametrize(
    "write",
    [
        as_nifti2,
        as_gzip_without_suffix,
        as_uncompressed_with_gzip_suffix,
        as_three_gray_channels,
        as_metaimage,
    ],
)
def test_formats_give_the_same_frames(tmp_path: Path, write) -> None:
    frames = picture()
    write(tmp_path / "a", frames)
    (path,) = (one for one in tmp_path.iterdir() if one.suffix != ".zraw")
    images = read_images(path)
    assert np.array_equal(images.frames, frames)
    assert images.spacing == pytest.approx(SPACING)


# --- scale --------------------------------------------------------------------------------


def without_scale(image: nib.Nifti1Image) -> None:
    image.set_sform(np.eye(4), 1)
    image.set_qform(np.eye(4), 1)
    image.header.set_zooms((1.0, 1.0, 1.0))


def two_scales(image: nib.Nifti1Image) -> None:
    image.header["pixdim"][1:3] = 1.0


def centimetres(image: nib.Nifti1Image) -> None:
    image.set_sform(np.diag([-75.0, -50.0, 1.0, 1.0]), 1)
    image.header["pixdim"][1:3] = 75.0, 50.0


@pytest.mark.parametrize("spoil", [without_scale, two_scales, centimetres])
def test_implausible_scale_gives_no_spacing(tmp_path: Path, spoil) -> None:
    frames = picture()
    image = released(frames)
    spoil(image)
    nib.save(image, tmp_path / "a.nii")
    images = read_images(tmp_path / "a.nii")
    assert images.spacing is None
    assert images.geometry.scale_problem
    assert np.array_equal(images.frames, frames)
    assert read_images(tmp_path / "a.nii", spacing=SPACING).spacing == SPACING


# --- colours and labels -------------------------------------------------------------------


def test_colours_are_refused_but_three_frames_are_read(tmp_path: Path) -> None:
    gray = picture()[0].T
    rgb = np.stack([gray, gray // 2, gray // 3], axis=-1)
    packed = np.zeros(gray.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    packed["R"], packed["G"], packed["B"] = np.moveaxis(rgb, -1, 0)
    for pixels in (rgb, rgb[:, :, None, None], packed):
        nib.save(nib.Nifti1Image(pixels, AFFINE), tmp_path / "a.nii")
        with pytest.raises(InputError, match="colour"):
            read_images(tmp_path / "a.nii")
    moving = picture(3)
    nib.save(released(moving), tmp_path / "a.nii")
    assert np.array_equal(read_images(tmp_path / "a.nii").frames, moving)


def test_labels_stored_with_a_slope_are_read_and_not_taken_for_an_image(tmp_path: Path) -> None:
    labels = (picture() % 4).astype(np.uint8)
    image = nib.Nifti1Image(labels.transpose(2, 1, 0).astype(float), AFFINE)
    image.header.set_data_dtype("int16")
    nib.save(image, tmp_path / "a.nii")
    assert (np.asarray(nib.load(tmp_path / "a.nii").dataobj) % 1).any()  # 0.99998
    assert np.array_equal(read_labels(tmp_path / "a.nii", Camus).frames, labels)
    nib.save(released(labels), tmp_path / "b.nii")
    with pytest.raises(InputError, match="label map"):
        read_images(tmp_path / "b.nii")
    nib.save(nib.Nifti1Image(labels[0].T + 0.25, AFFINE), tmp_path / "c.nii")
    with pytest.raises(InputError, match=r"0\.25, 1\.25"):
        read_labels(tmp_path / "c.nii", Camus)
