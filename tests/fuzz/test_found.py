"""Faults that were found by mutated files."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from pydicom import Dataset

from heartseg.config.params import load_params
from heartseg.config.yaml_file import MAX_VALUES
from heartseg.data import images
from heartseg.data.formats.nifti import MAX_BYTES
from heartseg.data.phantoms.recording import make_dicom
from heartseg.data.strips.dicom import read_dicom
from heartseg.data.strips.pictures import read_mask, read_picture
from heartseg.errors import InputError
from tests.data.raw import echo
from tests.examples import ROOT
from tests.fuzz.formats import png, png_seeds, read_as_upload

PALETTE = 4  # its place among the seeds


def peak_memory(read: Callable[[Path], object], path: Path) -> int:
    """Return the peak memory in bytes of a reader that refuses a file."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=f"{path.name}: "):
            read(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# --- PNG ----------------------------------------------------------------------------------


def test_png_without_its_palette(tmp_path: Path) -> None:
    """Pillow raises an AssertionError when the transparency is read."""
    parts = [part for part in png_seeds()[PALETTE] if part[0] != b"PLTE"]
    (tmp_path / "a.png").write_bytes(png(parts))
    with pytest.raises(InputError, match=r"a\.png: cannot be read"):
        read_mask(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("columns", "rows"), [(1 << 14, 1 << 13), (1 << 30, 1), (9000, 9000)])
def test_png_of_few_bytes_that_claims_many_pixels(tmp_path: Path, columns: int, rows: int) -> None:
    head, *rest = png_seeds()[0]
    size = struct.pack(">II", columns, rows)
    path = tmp_path / "a.png"
    path.write_bytes(png([(b"IHDR", size + head[1][8:]), *rest]))
    for read in (read_picture, images.read_images):
        with pytest.raises(InputError, match=r"a\.png: "):
            read(path)


def test_other_format_named_png(tmp_path: Path) -> None:
    """Pillow would try all its formats, including those that run other programs."""
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n")
    with pytest.raises(InputError, match="is not a NIfTI"):
        images.read_images(tmp_path / "a.png")


# --- NIfTI --------------------------------------------------------------------------------


def test_nifti_of_few_bytes_that_claims_many_frames(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((64, 64, 2), np.uint8), np.eye(4))
    head = bytearray(image.to_bytes())
    struct.pack_into("<h", head, 46, 32767)  # dim[3]
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(bytes(head[:352])) + gzip.compress(bytes(1 << 24)) * 9)
    with pytest.raises(InputError, match="at most"):
        images.read_images(path)


def test_nifti_header_of_a_frame_without_the_pixels(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((64, 64), np.uint8), np.eye(4))
    (tmp_path / "a.nii").write_bytes(image.to_bytes()[:400])
    with pytest.raises(InputError, match="cannot be read"):
        images.read_images(tmp_path / "a.nii")


def test_nifti_extension_that_is_longer_than_the_file(tmp_path: Path) -> None:
    """Its length of 2 GB must not be allocated."""
    image = nib.Nifti1Image(np.zeros((64, 64), np.uint8), np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"of eight bytes"))
    data = bytearray(image.to_bytes())
    struct.pack_into("<i", data, 352, 2**31 - 16)  # esize
    struct.pack_into("<f", data, 108, 2**31)  # vox_offset
    (tmp_path / "a.nii").write_bytes(data)
    assert peak_memory(images.read_images, tmp_path / "a.nii") < MAX_BYTES + (1 << 26)


# --- DICOM --------------------------------------------------------------------------------


@pytest.fixture
def dicom() -> Dataset:
    return make_dicom([echo()[0]], 0.04, 0.001)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("NumberOfFrames", 2**31 - 1, "2147483647 frame"),
        ("NumberOfFrames", -3, "-3 frame"),
        ("Rows", None, "Rows is missing"),
        ("Rows", [3, 4], "damaged header"),
        ("BitsStored", [8, 8], "cannot be"),
    ],
)
def test_implausible_dicom_counts(
    dicom: Dataset, tmp_path: Path, key: str, value: object, reason: str
) -> None:
    if value is None:
        delattr(dicom, key)
    else:
        setattr(dicom, key, value)
    dicom.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(InputError, match=reason):
        read_dicom(tmp_path / "a.dcm")


def test_dicom_region_with_two_values_for_one(dicom: Dataset, tmp_path: Path) -> None:
    dicom.SequenceOfUltrasoundRegions[2].PhysicalDeltaX = [0.1, 0.2]
    dicom.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(InputError, match=r"M-mode region|damaged header"):
        read_dicom(tmp_path / "a.dcm")


@pytest.mark.parametrize("read", [read_dicom, read_as_upload])
def test_dicom_length_beyond_the_file(
    dicom: Dataset, tmp_path: Path, read: Callable[[Path], object]
) -> None:
    """The length of 2 GB of an element of 2 bytes must not be allocated."""
    path = tmp_path / "a.dcm"
    dicom.save_as(path, enforce_file_format=True)
    data, rows = path.read_bytes(), b"\x28\x00\x10\x00US"
    place = data.rindex(rows)
    path.write_bytes(data[: place + 4] + b"UN\0\0\xff\xff\xff\x7f" + data[place + 8 :])
    assert peak_memory(read, path) < 1 << 26


# --- YAML ---------------------------------------------------------------------------------


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x]"]
    for n in range(1, levels):
        lines.append(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]")
    return "\n".join(lines)


@pytest.mark.parametrize("text", [bomb(10), "a: &a [*a]", "a: &a {<<: *a}"])
def test_yaml_with_aliases_for_billions_of_values(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(InputError, match=rf"more than {MAX_VALUES} values|not valid YAML"):
        load_params(tmp_path / "params.yaml")


def test_yaml_with_harmless_alias_is_read(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text()
    content = yaml.safe_load(text)
    content["recipes"]["camus-unet"] = content["recipes"]["camus"]  # dumped as an alias
    dumped = yaml.safe_dump(content)
    assert "*id001" in dumped
    (tmp_path / "params.yaml").write_text(dumped)
    params = load_params(tmp_path / "params.yaml")
    assert params.recipe("camus-unet") == params.recipe("camus")


@pytest.mark.parametrize(
    "text",
    ["{a: " * 5000, "a: 2001-99-99", "a: !!int ''", "a: !!timestamp x", "a: !!bool x", "9" * 5000],
)
def test_yaml_with_other_pyyaml_errors(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(InputError, match=r"params\.yaml"):
        load_params(tmp_path / "params.yaml")
