"""NIfTI frames are read as (H, W) with the right spacing, or refused with a reason."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from heartseg.data import images
from heartseg.data.formats import nifti
from heartseg.data.formats.pixels import to_uint8
from heartseg.data.images import read_images, read_values
from heartseg.errors import InputError
from tests.data.raw import AFFINE, DEPTH, SPACING, WIDTH, echo, write_nifti


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("third_axis", [False, True])
def test_axes_and_spacing(tmp_path: Path, ending: str, third_axis: bool) -> None:
    image, _ = echo()
    path = tmp_path / f"frame{ending}"
    write_nifti(path, image, third_axis=third_axis)
    on_disk = np.asanyarray(nib.load(path).dataobj)
    assert on_disk.shape[:2] == (WIDTH, DEPTH)
    read = read_images(path)
    assert read.frames.shape == (1, DEPTH, WIDTH)
    assert (read.frames[0] == image).all()
    assert read.frames[0, 3, 7] == on_disk[7, 3]
    assert read.spacing == pytest.approx(SPACING)


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("meter", 1000), ("micron", 0.001)])
def test_spacing_is_in_mm_whatever_the_unit(tmp_path: Path, unit: str, factor: float) -> None:
    image = nib.Nifti1Image(np.zeros((WIDTH, DEPTH), np.uint8), AFFINE)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "frame.nii")
    expected = [factor * side for side in SPACING]
    read = read_values(tmp_path / "frame.nii")
    assert read.spacing is None or read.spacing == pytest.approx(expected)
    assert (
        (read.spacing is None) == (unit != "mm") == bool(read.geometry.scale_problem)
    )  # no heart fits


def save(path: Path, pixels: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(pixels, AFFINE), path)


def packed(data: bytes) -> bytes:
    return gzip.compress(data)


def good() -> bytes:
    return nib.Nifti1Image(echo()[0].T, AFFINE).to_bytes()


def with_header(offset: int, kind: str, *values: float) -> bytes:
    """Return a valid file with other header values at a byte offset."""
    data = bytearray(good())
    patch = np.array(values, kind).tobytes()
    data[offset : offset + len(patch)] = patch
    return packed(bytes(data))


BROKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "truncated gzip": (lambda: packed(good())[:-100], "truncated"),
    "without the end of its gzip": (lambda: packed(good())[:-4], "truncated"),
    "truncated NIfTI": (lambda: packed(good()[:-10]), "cannot be read"),
    "header only": (lambda: packed(good()[:200]), "truncated"),
    "zero bytes": (lambda: b"", "is empty"),
    "no gzip": (lambda: bytes(range(256)) * 8, "is not a NIfTI"),
    "garbage in gzip": (lambda: packed(bytes(range(256)) * 8), "is not a NIfTI"),
    "a flipped bit": (lambda: flipped(packed(good())), "gzip"),
    "huge dimensions": (lambda: with_header(40, "<i2", 2, 32000, 32000), r"\(32000, 32000\)"),
    "negative dimension": (lambda: with_header(40, "<i2", 2, -40, 24), "cannot be read"),
    "no dimension": (lambda: with_header(40, "<i2", 0), "shape"),
    "one dimension": (lambda: with_header(40, "<i2", 1, 960), "shape"),
    "nine dimensions": (lambda: with_header(40, "<i2", 9, 40, 24), "dimensions|cannot be read"),
    "unknown datatype": (lambda: with_header(70, "<i2", 77), "cannot be read"),
    "unknown unit": (lambda: with_header(123, "u1", 7), "cannot be read"),
}


def flipped(data: bytes) -> bytes:
    return data[:200] + bytes([data[200] ^ 255]) + data[201:]


@pytest.mark.parametrize("fault", BROKEN)
def test_damaged_file_is_named_with_reason_and_remedy(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "frame.nii.gz"
    make, reason = BROKEN[fault]
    path.write_bytes(make())
    with pytest.raises(InputError, match=reason) as caught:
        read_images(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.endswith(".")
    assert "\n" not in message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_refused(tmp_path: Path, value: float) -> None:
    pixels = np.zeros((WIDTH, DEPTH), np.float32)
    pixels[3, 4] = value
    save(tmp_path / "frame.nii.gz", pixels)
    with pytest.raises(InputError, match="NaN"):
        read_images(tmp_path / "frame.nii.gz")


def test_complex_values_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "frame.nii.gz", np.zeros((WIDTH, DEPTH), np.complex64))
    with pytest.raises(InputError, match="gray"):
        read_images(tmp_path / "frame.nii.gz")


@pytest.mark.parametrize("sizes", [(0.0, 0.5), (0.3, np.nan), (-np.inf, 0.3)])
def test_file_without_spacing_is_read_with_reason(tmp_path: Path, sizes) -> None:
    (tmp_path / "frame.nii.gz").write_bytes(with_header(80, "<f4", *sizes))
    read = read_images(tmp_path / "frame.nii.gz")
    assert (read.frames[0] == echo()[0]).all()
    assert read.spacing is None
    assert read.geometry.scale_problem


def test_folder_and_missing_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.nii.gz").mkdir()
    with pytest.raises(InputError, match="Is a directory"):
        read_images(tmp_path / "folder.nii.gz")
    with pytest.raises(InputError, match="is missing"):
        read_images(tmp_path / "absent.nii.gz")


def test_operating_system_errors_have_remedies(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="shorter name"):
        read_images(tmp_path / f"{'a' * 300}.nii")
    with pytest.raises(InputError, match=r"Not a directory.*part of the path"):
        read_images(tmp_path / "file/a.nii")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_file_that_is_too_large_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    save(tmp_path / f"sequence{ending}", np.zeros((WIDTH, DEPTH, 30)))
    monkeypatch.setattr(nifti, "MAX_BYTES", 1 << 17)
    with pytest.raises(InputError, match="sequence") as caught:
        read_images(tmp_path / f"sequence{ending}")
    assert "shorter" in str(caught.value)
    assert "damaged" not in str(caught.value)
    assert "truncated" not in str(caught.value)
    monkeypatch.setattr(nifti, "MAX_BYTES", 1 << 18)
    assert len(read_images(tmp_path / f"sequence{ending}").frames) == 30


def test_without_memory_a_file_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_memory(path: Path) -> None:
        raise MemoryError

    save(tmp_path / "a.nii", np.zeros((WIDTH, DEPTH)))
    monkeypatch.setitem(images.READERS, "nifti", without_memory)
    with pytest.raises(InputError, match=r"a\.nii: .*memory") as caught:
        read_images(tmp_path / "a.nii")
    assert "damaged" not in str(caught.value)


def test_to_uint8_keeps_whole_numbers_of_a_byte() -> None:
    values = np.array([[0, 7, 255]])
    for kind in (np.uint8, np.int16, np.float32, np.float64):
        result = to_uint8(values.astype(kind))
        assert result.dtype == np.uint8
        assert result.tolist() == [[0, 7, 255]]
    assert to_uint8(np.array([5, 9])).tolist() == [5, 9]  # not scaled


def test_to_uint8_scales_other_values_linearly() -> None:
    assert to_uint8(np.array([0.0, 0.2, 1.0])).tolist() == [0, 51, 255]
    assert to_uint8(np.array([-100, 0, 410], np.int16)).tolist() == [0, 50, 255]
    assert to_uint8(np.array([1000, 66535], np.int64)).tolist() == [0, 255]
    assert to_uint8(np.full((2, 2), 300)).tolist() == [[0, 0], [0, 0]]
    with pytest.raises(InputError, match="NaN"):
        to_uint8(np.array([0.0, np.nan]))
