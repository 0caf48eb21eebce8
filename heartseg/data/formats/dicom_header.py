"""Headers of ultrasound DICOM files: geometry and pixel format, but no names or dates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from heartseg.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset

# DICOM PS3.3, section C.8.5.5 (US Region Calibration Module)
TISSUE_2D = 1  # Region Spatial Format (0018,6012), C.8.5.5.1.1
M_MODE = 2
CENTIMETRES = 3  # Physical Units X/Y Direction (0018,6024) and (0018,6026), C.8.5.5.1.15

SIZE_TAGS = ("Rows", "Columns")
VOI_TAGS = ("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence")
PALETTES = [f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue")]
READ_TAGS = (
    "SOPClassUID",
    "SequenceOfUltrasoundRegions",
    "NumberOfFrames",
    "FrameTime",
    "PixelSpacing",
    *SIZE_TAGS,
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    *VOI_TAGS,
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *(f"{palette}Descriptor" for palette in PALETTES),
    *(f"{palette}Data" for palette in PALETTES),
    *(f"Segmented{palette}Data" for palette in PALETTES),
    "PixelData",
)
"""Elements that are read: geometry and pixels. All others, such as names and dates, are skipped."""


def is_dicom(path: Path) -> bool:
    """Return whether a file has the DICOM signature (PS3.10, section 7.1), whatever its name."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def open_dicom(path: Path) -> Dataset:
    """Read the elements `READ_TAGS` of a file.

    Raises:
        OSError: The file cannot be opened.
        Exception: The file is damaged. pydicom raises errors of many classes.
    """
    import pydicom

    # Reading from memory limits the bytes that a wrong length can request to the file's size.
    return pydicom.dcmread(BytesIO(path.read_bytes()), specific_tags=list(READ_TAGS))


def check_has_pixels(dataset: Dataset, needed: Sequence[str] = (*SIZE_TAGS, "PixelData")) -> None:
    """Check that a file contains an image, and is not a report, a directory or a waveform.

    Args:
        dataset: Result of `open_dicom`.
        needed: Elements that an image must have.

    Raises:
        InputError: Elements are missing. The message has the form "reason. Remedy".
    """
    from pydicom.uid import UID

    missing = [key for key in needed if dataset.get(key) is None]
    if missing:
        stated = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID", "")
        kind = UID(str(stated)).name or "unknown"
        raise InputError(
            f"contains no image: its SOP class is {kind}, and {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing. Name the files of the images"
        )


def get_number(dataset: Dataset, key: str) -> float:
    """Return the value of an element as a number, or NaN if it has none."""
    try:
        return float(dataset.get(key))
    except (TypeError, ValueError):
        return math.nan


def region_bounds(
    region: Dataset, dataset: Dataset, what: str, notes: list[str]
) -> tuple[slice, slice]:
    """Return the rows and columns of an ultrasound region.

    The corners are part of the region. Some programs state the first row or column after the region
    instead of its last one. If this is one pixel outside the image, the region is clipped.

    Args:
        region: Item of the Sequence of Ultrasound Regions.
        dataset: Result of `open_dicom`.
        what: Name of the region in messages.
        notes: List to which a note is appended if the region is clipped.

    Raises:
        InputError: The region is not inside the image.
    """
    names = ("MinY0", "MaxY1", "MinX0", "MaxX1")
    top, bottom, left, right = (int(region.get(f"RegionLocation{n}", -1)) for n in names)
    height, width = int(dataset.Rows), int(dataset.Columns)
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise InputError(
            f"its {what}, rows {top} to {bottom} and columns {left} to {right}, is not inside the "
            f"image of {height} x {width} pixels. Export the original image of the machine, "
            "neither cropped nor resized"
        )
    if bottom == height or right == width:
        notes.append(f"its {what} ends one pixel outside the image; it is clipped")
    return slice(top, min(bottom + 1, height)), slice(left, min(right + 1, width))
