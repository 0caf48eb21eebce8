"""NIfTI files: (lateral, depth[, time]) on disk, (H, W) or (T, H, W) in memory."""

from __future__ import annotations

import gzip
import math
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from heartseg.errors import InputError, one_line

MM_PER_UNIT = {"mm": 1.0, "unknown": 1.0, "meter": 1000.0, "micron": 0.001}
SIDES = range(16, 4097)
"""Rows or columns that a frame can have; a header that says otherwise is broken."""
MOST_BYTES = 256 << 20
"""Of an unpacked file; broken or hostile gzip could unpack to any size."""
MOST_PIXELS = 1 << 25
"""Of a file; a sequence of 30 frames of 1000 x 1000."""
RESTORE = "Restore it from the release."


@dataclass(frozen=True)
class Frame:
    """A NIfTI file: pixels (H, W) or (T, H, W) as stored, spacing (row, column) in mm, affine
    (4, 4)."""

    pixels: np.ndarray
    spacing: tuple[float, float]
    affine: np.ndarray


def read_frame(path: Path) -> Frame:
    """Read a 2-D NIfTI file whose first axis is lateral and whose second is depth.

    Raises:
        InputError: "path: reason. Remedy."
    """
    return _read(path, 2, "those of one frame. Give one 2-D frame of (lateral, depth).")


def read_sequence(path: Path) -> Frame:
    """Read a 3-D NIfTI file of (lateral, depth, time) with two frames or more.

    Raises:
        InputError: "path: reason. Remedy."
    """
    return _read(path, 3, "those of a sequence. Give one of (lateral, depth, time).")


def read_bytes(path: Path) -> bytes:
    """The file, unpacked, to its end, where gzip checks its sum; no more than MOST_BYTES.

    nibabel then parses memory: a file would be asked for as many bytes as a broken length says.
    """
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as stream:
        return stream.read(MOST_BYTES)


def _read(path: Path, axes: int, wanted: str) -> Frame:
    try:
        data = read_bytes(path)
        nifti = nib.Nifti1Image.from_bytes(data)
        depth, lateral = spacing_of(data, nib.Nifti1Header)
    except FileNotFoundError:
        raise InputError(f"{path}: is missing. {RESTORE}") from None
    except EOFError:
        raise InputError(f"{path}: is truncated. {RESTORE}") from None
    except Exception as error:  # nibabel and zlib raise many kinds on a broken file
        raise InputError(f"{path}: cannot be read ({one_line(error)}). {RESTORE}") from None

    shape = nifti.shape
    last = max((n for n, side in enumerate(shape) if side > 1), default=0)
    flat = shape[: max(last + 1, 2)]  # without the trailing axes of one
    if len(flat) != axes or any(side not in SIDES for side in flat[:2]):
        raise InputError(f"{path}: has the dimensions {shape}, not {wanted}")
    if math.prod(flat) > MOST_PIXELS:
        raise InputError(f"{path}: has {flat[2]} frames, more than can be. {RESTORE}")
    if nifti.get_data_dtype().kind not in "biuf":
        raise InputError(
            f"{path}: holds {nifti.get_data_dtype()}, not gray values. Convert it to gray."
        )
    try:
        pixels = np.asanyarray(nifti.dataobj).reshape(flat)
    except Exception as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}). {RESTORE}") from None
    if not np.isfinite(pixels).all():
        raise InputError(f"{path}: holds NaN or infinite values. {RESTORE}")

    if not (0 < lateral < math.inf and 0 < depth < math.inf):
        raise InputError(f"{path}: has a spacing of ({depth}, {lateral}) mm. Mend its header.")
    return Frame(np.ascontiguousarray(pixels.T), (depth, lateral), nifti.affine)


def spacing_of(data: bytes, kind: type[nib.Nifti1Header]) -> tuple[float, float]:
    """Spacing (row, column) in mm as the header has it, which may be 0 or NaN.

    Read from the bytes: nibabel silently turns a spacing of 0 into 1.

    Args:
        data: the file, unpacked.
        kind: of its header; that of NIfTI-2 is longer.
    """
    header = kind(data[: kind.sizeof_hdr], check=False)
    unit = header.get_xyzt_units()[0]
    lateral, depth = (abs(float(size)) * MM_PER_UNIT[unit] for size in header["pixdim"][1:3])
    return depth, lateral


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Gray values as uint8, same shape.

    Whole numbers within 0-255 are kept exactly; anything else is scaled linearly so that its
    least value becomes 0 and its greatest 255.

    Raises:
        InputError: a value is NaN or infinite.
    """
    if image.dtype == np.uint8:
        return image
    values = image.astype(np.float64)
    low, high = values.min(), values.max()
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError("the image holds NaN or infinite values")
    if low < 0 or high > 255 or (values != np.rint(values)).any():
        values = np.rint((values - low) * (255.0 / (high - low) if high > low else 0.0))
    return values.astype(np.uint8)
