"""DICOM recordings: exact strips, and errors."""

from __future__ import annotations

import io
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.utils import expand_ybr422
from pydicom.uid import JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from heartseg.data.formats.dicom_header import is_dicom
from heartseg.data.phantoms.recording import make_dicom, make_recording, scroll
from heartseg.data.strips.dicom import read_dicom
from heartseg.errors import InputError

SPACING = (0.037, 0.00083334)  # mm per row, s per column


@pytest.fixture(scope="module")
def strip() -> np.ndarray:
    return make_recording(5, 2).strip[40:200:2, :600]


@pytest.fixture
def dataset(strip: np.ndarray) -> Dataset:
    """Return RGB frames of 150 columns, 60 apart, with a 2-D, an ECG and an M-mode region."""
    return make_dicom(scroll(strip, 150, 60), *SPACING)


def save(dataset: Dataset, tmp_path: Path) -> Path:
    path = tmp_path / "a.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def set_pixels(dataset: Dataset, pixels: np.ndarray, meaning: str) -> None:
    """Set the pixels (frames, H, W[, 3]) of 8 or 16 bits."""
    dataset.PhotometricInterpretation = meaning
    dataset.SamplesPerPixel = 3 if pixels.ndim == 4 else 1
    if pixels.ndim == 3 and "PlanarConfiguration" in dataset:
        del dataset.PlanarConfiguration
    bits = 8 * pixels.dtype.itemsize
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    raw = pixels.tobytes()
    dataset.PixelData = raw + b"\0" * (len(raw) % 2)
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"


def test_strip_and_spacing_are_exact(dataset: Dataset, strip: np.ndarray, tmp_path: Path) -> None:
    path = save(dataset, tmp_path)
    assert is_dicom(path)
    recording = read_dicom(path)
    assert len(recording.strips) == 1
    assert np.array_equal(recording.strips[0], strip)
    assert recording.spacing == pytest.approx(SPACING, rel=1e-12)
    assert recording.notes == []


@pytest.mark.parametrize("order", [(2, 0, 1), (0, 2, 1), (2, 1, 0)])
def test_region_is_found_in_any_order(
    dataset: Dataset, strip: np.ndarray, tmp_path: Path, order: tuple[int, ...]
) -> None:
    regions = list(dataset.SequenceOfUltrasoundRegions)
    dataset.SequenceOfUltrasoundRegions = [regions[i] for i in order]
    assert np.array_equal(read_dicom(save(dataset, tmp_path)).strips[0], strip)


def test_largest_of_two_m_mode_regions_is_read(
    dataset: Dataset, strip: np.ndarray, tmp_path: Path
) -> None:
    small = deepcopy(dataset.SequenceOfUltrasoundRegions[2])
    small.RegionLocationMaxX1 = small.RegionLocationMinX0 + 20
    small.PhysicalDeltaX = 9.0
    dataset.SequenceOfUltrasoundRegions.append(small)
    recording = read_dicom(save(dataset, tmp_path))
    assert np.array_equal(recording.strips[0], strip)
    (note,) = recording.notes
    assert "2 M-mode regions" in note


def as_monochrome2(dataset: Dataset, gray: np.ndarray) -> None:
    set_pixels(dataset, gray, "MONOCHROME2")


def as_monochrome1(dataset: Dataset, gray: np.ndarray) -> None:
    set_pixels(dataset, 255 - gray, "MONOCHROME1")


def as_12_bits(dataset: Dataset, gray: np.ndarray) -> None:
    set_pixels(dataset, gray.astype(np.uint16) * 16 + 7, "MONOCHROME2")
    dataset.BitsStored, dataset.HighBit = 12, 11


def as_ybr_full(dataset: Dataset, gray: np.ndarray) -> None:
    ybr = np.full((*gray.shape, 3), 128, np.uint8)
    ybr[..., 0] = gray
    set_pixels(dataset, ybr, "YBR_FULL")


def as_ybr_full_422(dataset: Dataset, gray: np.ndarray) -> None:
    """Store two luminances and their two common colours (PS3.3, section C.7.6.3.1.2)."""
    pairs = gray.reshape(len(gray), -1, 2)
    packed = np.full((*pairs.shape[:2], 4), 128, np.uint8)
    packed[..., :2] = pairs
    assert (np.frombuffer(expand_ybr422(packed.tobytes(), 8), np.uint8)[::3] == gray.ravel()).all()
    as_ybr_full(dataset, gray)  # sets the header
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    dataset.PixelData = packed.tobytes()


def as_palette(dataset: Dataset, gray: np.ndarray) -> None:
    """Store pixels as indices of a reversed table of gray values."""
    set_pixels(dataset, 255 - gray, "PALETTE COLOR")
    table = np.arange(255, -1, -1, dtype=np.uint8).tobytes()
    for colour in ("Red", "Green", "Blue"):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 8])
        setattr(dataset, f"{colour}PaletteColorLookupTableData", table)


def as_rle(dataset: Dataset, gray: np.ndarray) -> None:
    dataset.compress(RLELossless)


@pytest.mark.parametrize(
    "store",
    [as_monochrome2, as_monochrome1, as_12_bits, as_ybr_full, as_ybr_full_422, as_palette, as_rle],
)
def test_pixel_formats(
    dataset: Dataset,
    strip: np.ndarray,
    tmp_path: Path,
    store: Callable[[Dataset, np.ndarray], None],
) -> None:
    store(dataset, np.ascontiguousarray(dataset.pixel_array[..., 0]))
    recording = read_dicom(save(dataset, tmp_path))
    assert np.array_equal(recording.strips[0], strip)


def test_jpeg_frames_are_joined(dataset: Dataset, strip: np.ndarray, tmp_path: Path) -> None:
    gray = dataset.pixel_array[..., 0]
    set_pixels(dataset, gray, "MONOCHROME2")
    streams = [io.BytesIO() for _ in gray]
    for picture, stream in zip(gray, streams, strict=True):
        Image.fromarray(picture).save(stream, "JPEG", quality=85)
    dataset.PixelData = encapsulate([stream.getvalue() for stream in streams])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    (joined,) = read_dicom(save(dataset, tmp_path)).strips
    assert joined.shape == strip.shape
    assert np.abs(joined.astype(int) - strip).mean() < 4


def test_colour_becomes_luminance(dataset: Dataset, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shape = (1, dataset.Rows, dataset.Columns, 3)
    colours = rng.integers(0, 256, shape, dtype=np.uint8)
    dataset.NumberOfFrames = 1
    set_pixels(dataset, colours, "RGB")
    (gray,) = read_dicom(save(dataset, tmp_path)).strips
    red, green, blue = colours[0, 60:140, 20:170].astype(float).transpose(2, 0, 1)
    assert np.abs(gray - (0.299 * red + 0.587 * green + 0.114 * blue)).max() <= 0.5 + 1e-9


def region(dataset: Dataset) -> Dataset:
    return dataset.SequenceOfUltrasoundRegions[2]


def as_jpeg_ls(dataset: Dataset) -> None:
    dataset.PixelData = encapsulate([b"\xff\xd8no jpeg"] * dataset.NumberOfFrames)
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEGLSLossless


FAULTS: dict[str, tuple[Callable[[Dataset], object], str]] = {
    "no regions": (
        lambda d: d.pop("SequenceOfUltrasoundRegions"),
        "no M-mode region .*Ultrasound Multi-frame Image Storage.* recordings.csv",
    ),
    "2-D only": (lambda d: d.SequenceOfUltrasoundRegions.pop(2), "no M-mode region"),
    "velocity": (
        lambda d: setattr(region(d), "PhysicalUnitsYDirection", 7),
        "no M-mode region with the units cm and s",
    ),
    "no scale": (lambda d: setattr(region(d), "PhysicalDeltaX", 0.0), "0 s per column"),
    "outside": (
        lambda d: setattr(region(d), "RegionLocationMaxX1", 999),
        "columns 20 to 999",
    ),
    "too many frames": (lambda d: setattr(d, "NumberOfFrames", 10**6), "in parts"),
    "no rows": (lambda d: setattr(d, "NumberOfFrames", -1), "-1 frame"),
    "strange colours": (
        lambda d: setattr(d, "PhotometricInterpretation", "YBR_PARTIAL_420"),
        "Photometric Interpretation is YBR_PARTIAL_420",
    ),
    "undecodable": (as_jpeg_ls, r"JPEG-LS.* cannot be decoded .*pylibjpeg"),
    "too few pixels": (
        lambda d: setattr(d, "PixelData", d.PixelData[:-5000]),
        "cannot be decoded",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_named(dataset: Dataset, tmp_path: Path, name: str) -> None:
    break_it, reason = FAULTS[name]
    break_it(dataset)
    path = save(dataset, tmp_path)
    with pytest.raises(InputError, match=reason) as caught:
        read_dicom(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(b"\0" * 128 + b"DICMxx")
    with pytest.raises(InputError, match=r"a\.dcm: "):
        read_dicom(path)
    path.write_bytes(b"nothing")
    assert not is_dicom(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_dicom(path)
