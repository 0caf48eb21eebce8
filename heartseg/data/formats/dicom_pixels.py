"""Pixels of ultrasound DICOM files as 8-bit gray values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from heartseg.data.formats.dicom_header import VOI_TAGS, get_number
from heartseg.data.formats.dicom_streams import check_stream
from heartseg.data.formats.pixels import LUMA, bit_depth
from heartseg.errors import InputError, one_line

if TYPE_CHECKING:
    from pydicom import Dataset

MAX_PIXELS = 1 << 26
"""Largest number of pixels of a frame. A header that states more is broken or hostile."""
MAX_TOTAL_PIXELS = 1 << 30
"""Largest number of pixels of all frames."""

GRAY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")  # pydicom decodes all to RGB


def gray_frames(
    dataset: Dataset, rows: slice, columns: slice, notes: list[str]
) -> Iterator[np.ndarray]:
    """Yield a part of every frame as uint8 (H, W), as an image viewer would show it.

    The VOI window or table is applied if there is one. Otherwise the stored bits are scaled to 8.
    If 16 bits are stored, the bits in use in any frame are scaled, because programs declare 16 bits
    for values of 8 or 12.

    Args:
        dataset: Result of `open_dicom`.
        rows, columns: Part of the image.
        notes: List to which unusual properties of the pixels are appended.

    Raises:
        InputError: The pixels cannot be decoded, or are not an image.
    """
    interpretation = str(dataset.get("PhotometricInterpretation", ""))
    if interpretation not in (*GRAY, *COLOUR, "PALETTE COLOR"):
        raise InputError(
            f"its Photometric Interpretation is {interpretation or 'missing'}, which is not "
            "supported. Export it in gray values or RGB"
        )
    if dataset.get("PixelRepresentation", 0) != 0:
        raise InputError(
            "its pixels are signed numbers, which are not supported. Export it with unsigned gray "
            "values"
        )
    decoded = _decode(dataset, rows, columns)
    if interpretation not in GRAY:
        for frame in decoded:
            yield _colours_to_gray(frame, dataset, interpretation)
        return
    inverted = (interpretation == "MONOCHROME1") != (get_number(dataset, "RescaleSlope") < 0)
    for frame in _scale_to_uint8(decoded, dataset, notes):
        yield 255 - frame if inverted else frame


def _decode(dataset: Dataset, rows: slice, columns: slice) -> Iterator[np.ndarray]:
    """Yield the stored values of every frame, (H, W) or (H, W, 3)."""
    from pydicom.pixels import get_decoder, pixel_array
    from pydicom.uid import RLELossless

    count = int(dataset.get("NumberOfFrames") or 1)
    size = dataset.Rows * dataset.Columns
    stated = f"its header states {count} frame(s) of {dataset.Rows} x {dataset.Columns} pixels"
    if count < 1 or size < 1 or size > MAX_PIXELS:
        raise InputError(f"{stated}, which is not plausible. Copy or export it again")
    if size * count > MAX_TOTAL_PIXELS:
        raise InputError(
            f"{stated}, but it may have at most {MAX_TOTAL_PIXELS} in total. Export it in parts"
        )
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_compressed and not get_decoder(syntax).is_available:
        raise InputError(
            f"its frames are compressed as {syntax.name}, for which no decoder is installed. "
            "Run `pip install heartseg[dicom]`, or decompress the file with `gdcmconv --raw`"
        )
    # pylibjpeg-rle panics on a damaged frame, which `except Exception` does not catch.
    plugin = "pydicom" if syntax == RLELossless else ""
    for index in range(count):
        try:
            if syntax.is_encapsulated:
                check_stream(dataset, index, count)
            # Frames are decoded one by one: iter_pixels of pydicom 3.0 fails after YBR_FULL_422.
            frame = pixel_array(dataset, index=index, decoding_plugin=plugin)
        except InputError as error:
            raise InputError(f"its frame {index + 1} {error}") from None
        except Exception as error:  # decoders raise errors of many classes
            remedy = ", or decompress it with `gdcmconv --raw`" if syntax.is_compressed else ""
            raise InputError(
                f"its frame {index + 1} ({syntax.name}) cannot be decoded ({one_line(error)}). "
                f"Copy or export the file again{remedy}"
            ) from None
        yield frame[rows, columns]


def _colours_to_gray(pixels: np.ndarray, dataset: Dataset, interpretation: str) -> np.ndarray:
    from pydicom.pixels import apply_color_lut

    bits = int(dataset.get("BitsStored", 8))
    if interpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
        bits = 8 * pixels.dtype.itemsize
    luma = np.rint(pixels[..., :3] @ LUMA)
    return (luma / 2.0 ** (bits - 8)).astype(np.uint8)


def _scale_to_uint8(
    frames: Iterator[np.ndarray], dataset: Dataset, notes: list[str]
) -> Iterator[np.ndarray]:
    """Yield frames of gray values as uint8, without the inversion of MONOCHROME1."""
    bits = int(dataset.get("BitsStored", 8))
    if any(dataset.get(key) not in (None, "") for key in VOI_TAGS):
        first = next(frames)
        apply_voi = _voi_function(dataset, first)
        if apply_voi is not None:
            yield from map(apply_voi, chain([first], frames))
            return
        notes.append("its VOI window would make the image uniform, so it is not applied")
        frames = chain([first], frames)
    if bits <= 8:
        for frame in frames:
            yield (frame << (8 - bits)).astype(np.uint8)
        return
    held = list(frames)
    used = max(map(bit_depth, held))
    if bits == 16 or used == 8:
        if used < bits:
            notes.append(f"has {bits} bits, of which {used} are in use; they are scaled to 8")
        bits = used
    for frame in held:
        yield (frame >> (bits - 8)).astype(np.uint8)


def _voi_function(dataset: Dataset, first: np.ndarray) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return a function that applies the VOI window or table, or None if it loses the image.

    Args:
        dataset: Result of `open_dicom`.
        first: First frame (H, W), by which this is checked.
    """
    from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing

    if table := dataset.get("VOILUTSequence"):
        apply, low, high = apply_voi, 0.0, 2.0 ** int(table[0].LUTDescriptor[2]) - 1
    else:
        apply = apply_windowing
        try:
            low, high = apply(np.array([-1e12, 1e12]), dataset)  # the values of black and white
        except Exception:  # a center without a width, or a width of 0
            return None

    def to_uint8(frame: np.ndarray) -> np.ndarray:
        values = apply(apply_modality_lut(frame, dataset), dataset)
        return np.rint((values - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)

    lost = high <= low or (np.ptp(to_uint8(first)) == 0 and np.ptp(first) > 0)
    return None if lost else to_uint8
