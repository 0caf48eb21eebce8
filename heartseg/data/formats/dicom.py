"""Ultrasound DICOM files: pixels and geometry, nothing else of the header."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from heartseg.data.formats.dicom_streams import check_stream
from heartseg.data.formats.pixels import Images, depth_of
from heartseg.data.geometry import SAME_SCALE, Geometry, Spacing, believed_step, geometry_of
from heartseg.errors import InputError, one_line

if TYPE_CHECKING:
    from pydicom import Dataset

# DICOM PS3.3, section C.8.5.5 (US Region Calibration Module)
TISSUE_2D = 1  # Region Spatial Format (0018,6012), C.8.5.5.1.1
M_MODE = 2
CENTIMETRES = 3  # Physical Units X/Y Direction (0018,6024) and (0018,6026), C.8.5.5.1.15

WINDOW = ("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence")
SIZES = ("Rows", "Columns")
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
    *WINDOW,
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
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


def check_picture(dataset: Dataset, needed: Sequence[str] = (*SIZES, "PixelData")) -> None:
    """Refuse what holds no picture: reports, directories, waveforms.

    Args:
        dataset: the file.
        needed: the elements that a picture has.

    Raises:
        InputError: "reason. Remedy."
    """
    from pydicom.uid import UID

    lacking = [key for key in needed if dataset.get(key) is None]
    if lacking:
        stated = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID", "")
        kind = UID(str(stated)).name or "of no stated kind"
        raise InputError(
            f"holds no picture: it is {kind}, without {' and '.join(lacking)}. Give the files of "
            "the images"
        )


def number_of(dataset: Dataset, key: str) -> float:
    """The number of an element, NaN if it has none."""
    try:
        return float(dataset.get(key))
    except (TypeError, ValueError):
        return math.nan


# --- 2-D images ---------------------------------------------------------------------------


def read_tissue(path: Path) -> Images:
    """Read the calibrated 2-D region of a file; what stands around it is text and scales.

    Without regions the whole picture is read. What is saved are NIfTI files of the whole picture,
    0 around the region, in the axes of the CAMUS release.

    Raises:
        InputError: "reason. Remedy."
    """
    from heartseg.data.formats.nifti import write_maps

    dataset = open_dicom(path)
    check_picture(dataset)
    notes: list[str] = []
    rows, columns, geometry = _tissue_region(dataset, notes)
    frames = np.stack(list(gray_frames(dataset, rows, columns, notes)))

    def save(maps: np.ndarray, place: Path) -> None:
        whole = np.zeros((len(maps), dataset.Rows, dataset.Columns), maps.dtype)
        whole[:, rows, columns] = maps
        write_maps(whole, place, geometry)

    return Images(frames, geometry, save, ".nii.gz", tuple(notes), (rows, columns))


def _tissue_region(dataset: Dataset, notes: list[str]) -> tuple[slice, slice, Geometry]:
    """Rows, columns and geometry of the largest 2-D region, or of the whole picture."""
    time = believed_step(number_of(dataset, "FrameTime") / 1000)
    shape = (int(dataset.Rows), int(dataset.Columns))
    by_pixels = _pixel_spacing(dataset)
    regions = dataset.get("SequenceOfUltrasoundRegions") or []
    kinds = [region.get("RegionSpatialFormat") for region in regions]
    if M_MODE in kinds:
        raise InputError("is an M-mode recording. Segment it by `heartseg recording`")
    found = [region for region in regions if region.get("RegionSpatialFormat") == TISSUE_2D]
    if regions and not found:
        raise InputError("has no 2-D region. Export the 2-D images")
    if not found:
        doubt = "" if by_pixels else "has neither a calibrated region nor a Pixel Spacing"
        geometry = geometry_of(by_pixels, shape, doubt, time_per_frame=time)
        return slice(None), slice(None), geometry
    bounds = [region_bounds(region, dataset, "2-D region", notes) for region in found]
    areas = [(r.stop - r.start) * (c.stop - c.start) for r, c in bounds]
    largest = max(range(len(areas)), key=areas.__getitem__)
    (rows, columns), region = bounds[largest], found[largest]
    units = (region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection"))
    spacing, doubt = by_pixels, ""
    if units == (CENTIMETRES, CENTIMETRES):  # some machines count upwards: negative
        row, column = (10 * abs(number_of(region, f"PhysicalDelta{axis}")) for axis in "YX")
        spacing = (row, column)
        if by_pixels and not np.allclose(by_pixels, spacing, rtol=SAME_SCALE):
            notes.append(
                f"has a Pixel Spacing of {by_pixels[0]:.4g} x {by_pixels[1]:.4g} mm; the "
                f"{row:.4g} x {column:.4g} mm of its 2-D region count"
            )
    elif spacing is None:
        doubt = "its 2-D region is not calibrated in centimetres, and it has no Pixel Spacing"
    size = (rows.stop - rows.start, columns.stop - columns.start)
    return rows, columns, geometry_of(spacing, size, doubt, time_per_frame=time)


def _pixel_spacing(dataset: Dataset) -> Spacing | None:
    stated = dataset.get("PixelSpacing")
    try:
        row, column = (float(step) for step in stated)
    except (TypeError, ValueError):  # absent, empty, or one number
        return None
    return row, column


def region_bounds(
    region: Dataset, dataset: Dataset, what: str, notes: list[str]
) -> tuple[slice, slice]:
    """Rows and columns of a region. Both of its corners belong to it.

    Some programs state the first row or column behind the region instead of its last one; if that
    leads one pixel out of the picture, it is clipped.

    Args:
        region: item of the Sequence of Ultrasound Regions.
        dataset: the file.
        what: the region's name in messages.
        notes: gets a note if the region was clipped.

    Raises:
        InputError: the region is not inside the picture.
    """
    names = ("MinY0", "MaxY1", "MinX0", "MaxX1")
    top, bottom, left, right = (int(region.get(f"RegionLocation{n}", -1)) for n in names)
    height, width = int(dataset.Rows), int(dataset.Columns)
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise InputError(
            f"its {what}, rows {top} to {bottom} and columns {left} to {right}, is not "
            f"inside the picture of {height} x {width} pixels. Export the picture as the machine "
            "has it, neither cropped nor resized"
        )
    if bottom == height or right == width:
        notes.append(f"its {what} ends one pixel outside the picture; it is clipped")
    return slice(top, min(bottom + 1, height)), slice(left, min(right + 1, width))


# --- pixels -------------------------------------------------------------------------------


def gray_frames(
    dataset: Dataset, rows: slice, columns: slice, notes: list[str]
) -> Iterator[np.ndarray]:
    """These rows and columns of every frame, uint8 (H, W), as a viewer would show them.

    The VOI window or table is applied if there is one. Otherwise the bits that are stored are
    scaled to 8; of 16, those that are in use in any frame: programs write 16 for 8 or 12.

    Args:
        dataset: of `open_dicom`.
        rows, columns: of the picture; `notes` gets what is odd but no fault.

    Raises:
        InputError: the pixels cannot be decoded, or are no picture.
    """
    meaning = str(dataset.get("PhotometricInterpretation", ""))
    if meaning not in (*GRAY, *COLOUR, "PALETTE COLOR"):
        raise InputError(
            f"its pixels are {meaning or 'of no stated kind'}, which is not understood. "
            "Export it in gray values or RGB"
        )
    if dataset.get("PixelRepresentation", 0) != 0:
        raise InputError(
            "its pixels are signed numbers, which is no picture. Export it as unsigned gray values"
        )
    decoded = _decoded(dataset, rows, columns)
    if meaning not in GRAY:
        for frame in decoded:
            yield _from_colours(frame, dataset, meaning)
        return
    inverted = (meaning == "MONOCHROME1") != (number_of(dataset, "RescaleSlope") < 0)
    for frame in _scaled(decoded, dataset, notes):
        yield 255 - frame if inverted else frame


def _decoded(dataset: Dataset, rows: slice, columns: slice) -> Iterator[np.ndarray]:
    """Stored values of every frame, (H, W) or (H, W, 3)."""
    from pydicom.pixels import get_decoder, pixel_array
    from pydicom.uid import RLELossless

    count = int(dataset.get("NumberOfFrames") or 1)
    size = dataset.Rows * dataset.Columns
    stated = f"its header says {count} frame(s) of {dataset.Rows} x {dataset.Columns} pixels"
    if count < 1 or size < 1 or size > MOST_PIXELS:
        raise InputError(f"{stated}, which cannot be. Copy or export it again")
    if size * count > MOST_PIXELS_IN_ALL:
        raise InputError(f"{stated}, more than {MOST_PIXELS_IN_ALL} in all. Export it in parts")
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_compressed and not get_decoder(syntax).is_available:
        raise InputError(
            f"its frames are compressed as {syntax.name}, for which no decoder is installed. "
            "Run `pip install heartseg[dicom]`, or decompress the file (gdcmconv --raw)"
        )
    # pylibjpeg-rle panics on a broken frame, which no `except Exception` catches
    plugin = "pydicom" if syntax == RLELossless else ""
    for index in range(count):
        try:
            if syntax.is_encapsulated:
                check_stream(dataset, index, count)
            # One by one: pydicom 3.0's iter_pixels goes astray after a frame of YBR_FULL_422.
            frame = pixel_array(dataset, index=index, decoding_plugin=plugin)
        except InputError as error:
            raise InputError(f"its frame {index + 1} {error}") from None
        except Exception as error:  # each decoder raises errors of its own
            unpack = ", or decompress it (gdcmconv --raw)" if syntax.is_compressed else ""
            raise InputError(
                f"its frame {index + 1} ({syntax.name}) cannot be decoded ({one_line(error)}). "
                f"Copy or export the file again{unpack}"
            ) from None
        yield frame[rows, columns]


def _from_colours(pixels: np.ndarray, dataset: Dataset, meaning: str) -> np.ndarray:
    from pydicom.pixels import apply_color_lut

    bits = int(dataset.get("BitsStored", 8))
    if meaning == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
        bits = 8 * pixels.dtype.itemsize
    luma = np.rint(pixels[..., :3] @ LUMA)
    return (luma / 2.0 ** (bits - 8)).astype(np.uint8)


def _scaled(
    frames: Iterator[np.ndarray], dataset: Dataset, notes: list[str]
) -> Iterator[np.ndarray]:
    """Frames of gray values as uint8, not inverted yet."""
    bits = int(dataset.get("BitsStored", 8))
    if any(dataset.get(key) not in (None, "") for key in WINDOW):
        first = next(frames)
        shown = _by_window(dataset, first)
        if shown is not None:
            yield shown(first)
            yield from map(shown, frames)
            return
        notes.append("its VOI window leaves nothing of the picture, so it is not applied")
        frames = _again(first, frames)
    if bits <= 8:
        for frame in frames:
            yield (frame << (8 - bits)).astype(np.uint8)
        return
    held = list(frames)
    used = max(map(depth_of, held))
    if bits == 16 or used == 8:
        if used < bits:
            notes.append(f"has {bits} bits, of which {used} are in use; they are scaled to 8")
        bits = used
    for frame in held:
        yield (frame >> (bits - 8)).astype(np.uint8)


def _again(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest


def _by_window(dataset: Dataset, first: np.ndarray) -> Callable[[np.ndarray], np.ndarray] | None:
    """What applies the VOI window or table; None if it cannot be applied to the first frame."""
    from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing

    if table := dataset.get("VOILUTSequence"):
        apply, low, high = apply_voi, 0.0, 2.0 ** int(table[0].LUTDescriptor[2]) - 1
    else:
        apply = apply_windowing
        try:
            low, high = apply(np.array([-1e12, 1e12]), dataset)  # what is black, and white
        except Exception:  # a center without a width, a width of 0
            return None

    def shown(frame: np.ndarray) -> np.ndarray:
        values = apply(apply_modality_lut(frame, dataset), dataset)
        return np.rint((values - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)

    lost = high <= low or (np.ptp(shown(first)) == 0 and np.ptp(first) > 0)
    return None if lost else shown
