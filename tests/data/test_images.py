"""Reading of DICOM and PNG images."""

from __future__ import annotations

from copy import deepcopy
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate, encapsulate_extended

from heartseg.data.images import read_images, read_uncertainty
from heartseg.data.phantoms.recording import make_dicom
from heartseg.errors import InputError
from heartseg.paths import write_atomically


@pytest.fixture
def dataset():
    """Return three frames of noise, as the 2-D region of an image of 120 x 146."""
    frames = list(np.random.default_rng(0).integers(0, 256, (3, 30, 100), dtype=np.uint8))
    made = make_dicom(frames, 1.0, 1.0)
    region = made.SequenceOfUltrasoundRegions[2]
    region.RegionSpatialFormat = 1
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX, region.PhysicalDeltaY = 0.031, -0.052  # cm; some machines count upwards
    made.SequenceOfUltrasoundRegions = [region]
    made.FrameTime = "20.0"
    return made, np.stack(frames)


def save(dataset, folder: Path) -> Path:
    dataset.save_as(folder / "IM_0001", enforce_file_format=True)
    return folder / "IM_0001"


def test_dicom_region_is_read_and_saved_on_the_whole_image(dataset, tmp_path):
    made, frames = dataset

    images = read_images(save(made, tmp_path))

    assert (images.frames == frames).all()
    assert images.spacing == pytest.approx((0.52, 0.31))
    assert images.frame_rate == 50
    labels = (frames > 128).astype(np.uint8)
    images.save(labels, tmp_path / "labels.nii.gz")
    stored = nib.load(tmp_path / "labels.nii.gz")
    assert stored.shape == (made.Columns, made.Rows, 3)
    assert stored.header.get_zooms() == pytest.approx((0.31, 0.52, 0.02))
    assert stored.header.get_xyzt_units() == ("mm", "sec")
    whole = np.asanyarray(stored.dataobj).transpose(2, 1, 0)
    assert (whole[:, 60:90, 20:120] == labels).all()
    assert whole.sum() == labels.sum()
    assert images.region == (slice(60, 90), slice(20, 120))
    doubts = np.random.default_rng(1).random(frames.shape, dtype=np.float32)
    images.save(doubts, tmp_path / "doubts.nii.gz")
    back = read_uncertainty(tmp_path / "doubts.nii.gz")
    assert (back[:, 60:90, 20:120] == doubts).all()
    assert back.sum(dtype=float) == pytest.approx(doubts.sum(dtype=float))
    assert nib.load(tmp_path / "doubts.nii.gz").header.get_zooms() == stored.header.get_zooms()


def test_largest_of_two_regions_is_read(dataset, tmp_path):
    made, frames = dataset
    region = made.SequenceOfUltrasoundRegions[0]
    small = deepcopy(region)
    small.RegionLocationMaxX1 = small.RegionLocationMinX0 + 20
    made.SequenceOfUltrasoundRegions = [small, region, small]

    assert read_images(save(made, tmp_path)).frames.shape == frames.shape


def test_without_regions_the_whole_image_is_read_with_its_pixel_spacing(dataset, tmp_path):
    made, _ = dataset
    del made.SequenceOfUltrasoundRegions
    made.PixelSpacing = [0.4, 0.3]

    images = read_images(save(made, tmp_path))

    assert images.frames.shape == (3, made.Rows, made.Columns)
    assert images.spacing == (0.4, 0.3)


def test_dicom_without_2d_image_is_refused(dataset, tmp_path):
    made, _ = dataset
    region = made.SequenceOfUltrasoundRegions[0]
    for kind, reason in ((2, "heartseg recording"), (3, "no 2-D region")):
        region.RegionSpatialFormat = kind
        with pytest.raises(InputError, match=rf"IM_0001: .*{reason}"):
            read_images(save(made, tmp_path))


def test_a_region_that_ends_at_the_number_of_columns_is_clipped(dataset, tmp_path):
    made, _ = dataset
    region = made.SequenceOfUltrasoundRegions[0]
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = made.Columns, made.Rows
    clipped = read_images(save(made, tmp_path))
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = made.Columns - 1, made.Rows - 1
    whole = read_images(save(made, tmp_path))
    assert np.array_equal(clipped.frames, whole.frames)
    assert clipped.spacing == whole.spacing
    region.RegionLocationMaxX1 = made.Columns + 1
    with pytest.raises(InputError, match=r"IM_0001: .*2-D region"):
        read_images(save(made, tmp_path))


@pytest.mark.parametrize("stated", [[0, 0], [-0.3, 0.3], [3.0, 0.3], [30.0, 30.0]])
def test_implausible_pixel_spacing_gives_no_spacing(dataset, tmp_path, stated):
    made, _ = dataset
    del made.SequenceOfUltrasoundRegions
    made.PixelSpacing = stated

    images = read_images(save(made, tmp_path))

    assert images.spacing is None
    assert f"{stated[0]:g} x {stated[1]:g} mm" in images.geometry.scale_problem


def test_region_delta_in_wrong_unit_gives_no_spacing(dataset, tmp_path):
    made, _ = dataset
    region = made.SequenceOfUltrasoundRegions[0]
    region.PhysicalDeltaX = region.PhysicalDeltaY = 3.1  # 31 mm per pixel
    assert read_images(save(made, tmp_path)).spacing is None


@pytest.mark.parametrize(("bits", "window"), [(8, None), (12, None), (8, (128, 256))])
def test_16_bits_are_scaled_by_bits_in_use_or_by_window(dataset, tmp_path, bits, window):
    made, frames = dataset
    gray = np.zeros((3, made.Rows, made.Columns), "<u2")
    gray[:, 60:90, 20:120] = frames
    gray <<= bits - 8
    made.PhotometricInterpretation, made.SamplesPerPixel = "MONOCHROME2", 1
    del made.PlanarConfiguration
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 16, 15
    if window:
        made.WindowCenter, made.WindowWidth = window
    made.PixelData = gray.tobytes()

    found = read_images(save(made, tmp_path)).frames.astype(int)

    assert abs(found - frames).max() <= (1 if window else 0)


def test_an_uncalibrated_region_has_no_spacing(dataset, tmp_path):
    made, _ = dataset
    made.SequenceOfUltrasoundRegions[0].PhysicalUnitsXDirection = 0

    assert read_images(save(made, tmp_path)).spacing is None


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_gray_values_of_a_png(tmp_path, mode):
    pixels = np.arange(20 * 24, dtype=np.uint8).reshape(20, 24)
    deep = Image.fromarray(pixels.astype(np.uint16) * 256)
    (deep if mode == "I;16" else Image.fromarray(pixels).convert(mode)).save(tmp_path / "a.png")

    images = read_images(tmp_path / "a.png")

    assert (images.frames[0] == pixels).all()
    assert images.spacing is None
    images.save(images.frames, tmp_path / "labels.png")
    assert (np.array(Image.open(tmp_path / "labels.png")) == pixels).all()
    doubts = np.linspace(0, 1, pixels.size, dtype=np.float32).reshape(images.frames.shape)
    images.save(doubts, tmp_path / "doubts.png")
    with Image.open(tmp_path / "doubts.png") as picture:
        assert (picture.mode, *picture.getextrema()) == ("L", 0, 255)
    back = read_uncertainty(tmp_path / "doubts.png")
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, doubts, atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize(
    ("unit", "per_mm"), [("mm", 1), ("unknown", 1), ("meter", 0.001), ("micron", 1000)]
)
def test_nifti_spacing_is_converted_to_mm(tmp_path, kind, unit, per_mm):
    steps = np.array([-0.25, -0.5, 1, 1]) * per_mm
    image = kind(np.zeros((60, 24), np.uint8), np.diag([*steps[:3], 1]))
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii.gz")

    assert read_images(tmp_path / "a.nii.gz").spacing == pytest.approx((0.5, 0.25))


@pytest.mark.parametrize("stored", [(0.0, 0.5), (0.25, 0.0), (0.0, 0.0), (0.25, np.nan)])
def test_nifti_without_spacing(tmp_path, stored):
    """nibabel replaces a pixel size of 0 by 1."""
    data = bytearray(nib.Nifti1Image(np.zeros((20, 24), np.uint8), None).to_bytes())
    data[80:88] = np.array(stored, "<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(data)

    assert read_images(tmp_path / "a.nii").spacing is None


def test_too_many_pixels_are_refused_before_decompression(tmp_path, monkeypatch):
    monkeypatch.setattr("heartseg.data.formats.pixels.MAX_PIXELS", 1000)
    monkeypatch.setattr(Image.Image, "convert", None)
    Image.new("1", (40, 30)).save(tmp_path / "bomb.png")

    with pytest.raises(InputError, match=r"bomb\.png: has frames of 30 x 40"):
        read_images(tmp_path / "bomb.png")


def jpeg(pixels, kind="JPEG", **options):
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def jpeg_ls_of(pixels):
    import jpeg_ls

    return bytes(jpeg_ls.encode(pixels))


def rle_of(pixels):
    """Return a segment of runs of 100 zeros."""
    head = np.zeros(16, "<u4")
    head[:2] = 1, 64
    return head.tobytes() + bytes([257 - 100, 0]) * (pixels.size // 100)


STREAMS = {
    "JPEGBaseline8Bit": lambda pixels: jpeg(pixels, comment=b"\xff\xc0" * 9),
    "JPEG2000Lossless": lambda pixels: jpeg(pixels, "JPEG2000", no_jp2=True),
    "JPEG2000": lambda pixels: jpeg(pixels, "JPEG2000"),
    "JPEGLSLossless": jpeg_ls_of,
    "RLELossless": rle_of,
}


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("syntax", STREAMS)
def test_compressed_frame_larger_than_header_is_refused(dataset, tmp_path, syntax, extended):
    """Decoders allocate the size that the frame states, such as gigabytes for a small file."""
    made, _ = dataset
    del made.SequenceOfUltrasoundRegions
    made.Rows, made.Columns, made.NumberOfFrames = 40, 60, 2
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    del made.PlanarConfiguration
    made.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
    encode = STREAMS[syntax]
    small, large = (np.zeros(size, np.uint8) for size in ((40, 60), (4000, 4000)))
    for second, fits in ((small, True), (large, False)):
        streams = [encode(small), encode(second)]
        if extended:
            made.PixelData, offsets, lengths = encapsulate_extended(streams)
            made.ExtendedOffsetTable, made.ExtendedOffsetTableLengths = offsets, lengths
        else:
            made.PixelData = encapsulate(streams)
        path = save(made, tmp_path)
        if fits:
            assert read_images(path).frames.shape == (2, 40, 60)
            continue
        expected = "frame 2 .*bytes" if syntax == "RLELossless" else "frame 2 .*4000 x 4000"
        with pytest.raises(InputError, match=expected):
            read_images(path)


def test_file_is_replaced_atomically(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    write_atomically(lambda temporary: temporary.write_text("one"), path)

    def half(temporary: Path) -> None:
        temporary.write_text("tw")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomically(half, path)

    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]
