"""M-mode strips from ultrasound DICOM files: pixels and geometry, nothing else of the header."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from heartseg.data.mmode_strip import join_frames
from heartseg.errors import InputError, one_line

if TYPE_CHECKING:
    from pydicom import Dataset

# DICOM PS3.3, section C.8.5.5 (US Region Calibration Module)
M_MODE = 2  # Region Spatial Format (0018,6012), C.8.5.5.1.1
CENTIMETRES = 3  # Physical Units X/Y Direction (0018,6024) and (0018,6026), C.8.5.5.1.15
SECONDS = 4

KEPT = (
    "SOPClassUID",
    "SequenceOfUltrasoundRegions",
    "NumberOfFrames",
    "FrameTime",
    "PixelSpacing",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in ("Red", "Green", "Blue")),
    *(f"{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    "PixelData",
)
"""Geometry and pixels. The rest, such as names and dates, is passed over while reading."""
MOST_PIXELS = 1 << 26
MOST_PIXELS_IN_ALL = 1 << 30
"""Of a frame, and of all; a header that says more is broken or hostile."""

GRAY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")  # pydicom gives RGB for all
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


@dataclass(frozen=True)
class MmodeRegion:
    """The M-mode part of a picture.

    Attributes:
        rows, columns: of the picture.
        spacing: (mm per row, s per column).
    """

    rows: slice
    columns: slice
    spacing: tuple[float, float]


@dataclass(frozen=True)
class MmodeDicom:
    """A recording: strips uint8 (H, W) in the order of time, (mm per row, s per column), notes."""

    strips: list[np.ndarray]
    spacing: tuple[float, float]
    notes: list[str]


def is_dicom(path: Path) -> bool:
    """Whether a file has the mark of DICOM (PS3.10, section 7.1), whatever its name."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def open_dicom(path: Path) -> Dataset:
    """The elements of `KEPT`; pydicom's many kinds of errors where the file is broken."""
    import pydicom

    # From memory: a file would be asked for as many bytes as a broken length says.
    return pydicom.dcmread(BytesIO(path.read_bytes()), specific_tags=list(KEPT))


def read_dicom(path: Path) -> MmodeDicom:
    """The M-mode strips of a single- or multi-frame ultrasound file.

    Raises:
        InputError: "path: reason. Remedy."; the file cannot be decoded, or has no calibrated
            M-mode region.
    """
    try:
        dataset = open_dicom(path)
    except Exception as error:  # pydicom raises many kinds on a broken file
        raise InputError(
            f"{path}: cannot be read ({one_line(error)}). Copy or export it again."
        ) from None
    try:
        region, notes = find_region(dataset)
        joined = join_frames(gray_frames(dataset, region.rows, region.columns))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # so does what it raises when a value is first looked at
        raise InputError(
            f"{path}: its header cannot be used ({one_line(error)}). Copy or export it again."
        ) from None
    return MmodeDicom(joined.strips, region.spacing, notes + joined.notes)


def find_region(dataset: Dataset) -> tuple[MmodeRegion, list[str]]:
    """The M-mode region in centimetres over seconds; the largest where there are several.

    Found by what the regions say of themselves: their order differs from machine to machine.

    Raises:
        InputError: there is none, or its numbers make no sense.
    """
    from pydicom.uid import UID

    found = [
        region
        for region in dataset.get("SequenceOfUltrasoundRegions") or []
        if region.get("RegionSpatialFormat") == M_MODE
    ]
    calibrated = [
        region
        for region in found
        if region.get("PhysicalUnitsXDirection") == SECONDS
        and region.get("PhysicalUnitsYDirection") == CENTIMETRES
    ]
    if not calibrated:
        kind = UID(dataset.get("SOPClassUID", "")).name or "of no stated kind"
        what = "an M-mode region, but not in cm over seconds" if found else "no M-mode region"
        raise InputError(
            f"has {what} (it is {kind}). Export the recording with its calibration, or give the "
            "strip as PNG with its spacing in recordings.csv."
        )
    regions = sorted((_bounds(region, dataset) for region in calibrated), key=_area)
    notes = []
    if len(regions) > 1:
        notes.append(f"{len(regions)} M-mode regions, the largest is taken")
    return regions[-1], notes


def _bounds(region: Dataset, dataset: Dataset) -> MmodeRegion:
    names = ("MinY0", "MaxY1", "MinX0", "MaxX1")
    top, bottom, left, right = (int(region.get(f"RegionLocation{n}", -1)) for n in names)
    if not (0 <= top < bottom < dataset.Rows and 0 <= left < right < dataset.Columns):
        raise InputError(
            f"its M-mode region, rows {top} to {bottom} and columns {left} to {right}, is not "
            f"inside the picture of {dataset.Rows} x {dataset.Columns} pixels. Export it again."
        )
    s_per_column = float(region.get("PhysicalDeltaX", 0))
    mm_per_row = 10 * float(region.get("PhysicalDeltaY", 0))
    if not (0 < s_per_column < np.inf and 0 < mm_per_row < np.inf):
        raise InputError(
            f"its M-mode region has {mm_per_row:g} mm per row and {s_per_column:g} s per column. "
            "Export it with its calibration."
        )
    # both corners belong to the region
    return MmodeRegion(slice(top, bottom + 1), slice(left, right + 1), (mm_per_row, s_per_column))


def _area(region: MmodeRegion) -> int:
    rows, columns = region.rows, region.columns
    return (rows.stop - rows.start) * (columns.stop - columns.start)


def gray_frames(dataset: Dataset, rows: slice, columns: slice) -> Iterator[np.ndarray]:
    """These rows and columns of every frame, uint8 (H, W).

    Raises:
        InputError: the pixels cannot be decoded, or are no picture.
    """
    from pydicom.pixels import apply_color_lut, pixel_array

    meaning = str(dataset.get("PhotometricInterpretation", ""))
    if meaning not in (*GRAY, *COLOUR, "PALETTE COLOR"):
        raise InputError(
            f"its pixels are {meaning or 'of no stated kind'}, which is not understood. "
            "Export it in gray values or RGB."
        )
    if dataset.get("PixelRepresentation", 0) != 0:
        raise InputError("its pixels are signed, which is no picture. Export it again.")
    bits, count = int(dataset.get("BitsStored", 8)), int(dataset.get("NumberOfFrames") or 1)
    size = dataset.Rows * dataset.Columns
    if count < 1 or size > MOST_PIXELS or size * count > MOST_PIXELS_IN_ALL:
        raise InputError(
            f"its header says {count} frame(s) of {dataset.Rows} x {dataset.Columns} pixels, which "
            "cannot be. Export it again, in parts if it is so long."
        )
    for index in range(count):
        try:
            # One by one: pydicom 3.0's iter_pixels goes astray after a frame of YBR_FULL_422.
            frame = pixel_array(dataset, index=index)
        except Exception as error:  # each decoder raises errors of its own
            syntax = dataset.file_meta.TransferSyntaxUID.name
            raise InputError(
                f"its frames ({syntax}) cannot be decoded ({one_line(error)}). Decompress the "
                "file (dcmdjpeg, gdcmconv --raw), or install pylibjpeg for pydicom."
            ) from None
        pixels = frame[rows, columns]
        if meaning == "PALETTE COLOR":
            pixels = apply_color_lut(pixels, dataset)
            bits = 8 * pixels.dtype.itemsize
        if pixels.ndim == 3:
            pixels = np.rint(pixels[..., :3] @ LUMA)
        elif meaning == "MONOCHROME1":  # white is 0
            pixels = 2**bits - 1 - pixels.astype(np.int64)
        yield (pixels / 2.0 ** (bits - 8)).astype(np.uint8)
