"""NIfTI files, version 1 and 2, uncompressed or gzip-compressed."""

from __future__ import annotations

import logging
import math
import zlib
from gzip import GzipFile
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np

from heartseg.data.formats.pixels import (
    MAX_TOTAL_PIXELS,
    Images,
    check_size,
    gray_or_frames,
    to_gray,
)
from heartseg.data.geometry import (
    SCALE_TOLERANCE,
    Geometry,
    Layout,
    find_layout,
    make_geometry,
    plausible_time_step,
)
from heartseg.errors import InputError

MM_PER_UNIT = {"mm": 1.0, "unknown": 1.0, "meter": 1000.0, "micron": 0.001}
SECONDS_PER_UNIT = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
COLOUR_INTENTS = {1007, 2003, 2004}
"""NIFTI_INTENT_VECTOR, _RGB_VECTOR, _RGBA_VECTOR of nifti1.h."""
FREE_TEXT = {"descrip", "aux_file", "intent_name", "db_name"}
"""Header fields in which converters write names and dates."""
MAX_BYTES = 256 << 20
"""Largest size of a decompressed file. Damaged or hostile gzip could decompress to any size."""
GZIP = b"\x1f\x8b"
SMALLER = "Split a sequence into shorter ones, or export one plane of a volume"
# nibabel logs its header fixes without the name of the file. Those that matter are notes here.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)


def read_bytes(path: Path) -> bytes:
    """Read a file, decompressed if its content is gzip.

    The whole file is read, so that gzip verifies its checksum. nibabel then reads from memory,
    which limits the bytes that a wrong length can request.

    Raises:
        InputError: The gzip data are damaged, or there are more than MAX_BYTES.
    """
    with path.open("rb") as stream:
        data = _read_all(stream)
    if not data.startswith(GZIP):
        return data
    try:
        with GzipFile(fileobj=BytesIO(data)) as stream:
            return _read_all(stream)
    except EOFError:
        raise InputError("is truncated. Copy it again") from None
    except (OSError, zlib.error):
        raise InputError("is damaged: gzip cannot decompress it. Copy it again") from None


def _read_all(stream: BinaryIO | GzipFile) -> bytes:
    data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise InputError(
            f"is larger than {MAX_BYTES >> 20} MiB. {SMALLER}, or store its gray values in 8 bits"
        )
    return data


def read_nifti(path: Path) -> Images:
    """Read a file. `Images.save` writes a .nii.gz file on the grid of the file.

    Raises:
        InputError: The file is not an image. The message has the form "reason. Remedy".
        Exception: The file is damaged. nibabel raises errors of many classes.
    """
    data = read_bytes(path)
    second = header_class(data) is nib.Nifti2Header
    image = (nib.Nifti2Image if second else nib.Nifti1Image).from_bytes(data)
    if math.prod(image.shape) > 4 * MAX_TOTAL_PIXELS:
        raise InputError(
            f"has shape {image.shape}, but may have at most {4 * MAX_TOTAL_PIXELS} values. "
            f"{SMALLER}"
        )
    pixels, colour = _gray(image)
    affine = _affine(image.header)
    layout = find_layout(pixels.shape, affine)
    frames = layout.to_frames(pixels)
    check_size(frames.shape[1], frames.shape[2], len(frames))
    steps = stored_pixdim(data, type(image.header))
    notes = [colour, layout.note, *_notes_on_pixdim(steps, layout)]
    return Images(
        frames,
        _geometry([abs(step) for step in steps], image, layout, affine, frames.shape),
        lambda maps, target: _save(image, layout, maps, target),
        ".nii.gz",
        tuple(note for note in notes if note),
    )


def header_class(data: bytes) -> type[nib.Nifti1Header]:
    """Return the class of the header with which a file begins.

    Args:
        data: Decompressed content of the file, or its beginning.

    Raises:
        InputError: It is not NIfTI, or the header is truncated.
    """
    sizes = {int.from_bytes(data[:4], order) for order in ("little", "big")}
    if not {348, 540} & sizes:
        raise InputError(f"is compressed with gzip, and its content {_other_than_nifti(data)}")
    if len(data) < nib.Nifti1Header.sizeof_hdr:
        raise InputError("is truncated. Copy it again")
    if 540 in sizes:
        return nib.Nifti2Header
    if data[344:347] != b"n+1":
        raise InputError(
            "is an Analyze file, or a NIfTI header with its pixels in another file (.hdr and "
            ".img). Save it as one .nii file"
        )
    return nib.Nifti1Header


def _other_than_nifti(data: bytes) -> str:
    from heartseg.data.images import describe_unsupported, detect_format

    if data[257:262] == b"ustar":
        return "is a tar archive. Unpack it"
    kind = detect_format(data)
    if kind and kind != "nifti":
        return f"is {kind.upper()}. Decompress it"
    return describe_unsupported(data)


FRAMES = b"frames"
"""`intent_name` of the files that heartseg writes. Without it, three equal label maps could be read
as three equal colour channels."""


def _save(image: nib.Nifti1Image, layout: Layout, maps: np.ndarray, target: Path) -> None:
    header = image.header.copy()
    for field in FREE_TEXT & set(header.keys()):
        header[field] = b""
    header.extensions.clear()  # may contain a whole DICOM header
    header.set_data_dtype(maps.dtype)
    header.set_slope_inter(1, 0)
    header["intent_code"] = 0  # the image may have the intent of colours
    header["intent_name"] = FRAMES
    header["cal_min"], header["cal_max"] = 0, 0  # the display range of the gray values
    # If the file has no affine, nibabel derives one from the spacing, which may be NaN.
    affine = image.affine if np.isfinite(image.affine).all() else np.eye(4)
    nib.save(type(image)(layout.to_stored(maps), affine, header), target)


def write_maps(maps: np.ndarray, target: Path, geometry: Geometry) -> None:
    """Write maps of an image of another format as NIfTI, with the axes of the CAMUS release.

    Args:
        maps: Maps (T, H, W).
        target: Path of the .nii.gz file.
        geometry: Geometry of the image.
    """
    row, column = geometry.spacing or (1.0, 1.0)
    stored = maps.transpose(2, 1, 0)
    image = nib.Nifti1Image(
        stored if len(maps) > 1 else stored[..., 0], np.diag([-column, -row, 1.0, 1.0])
    )
    image.header.set_xyzt_units("mm" if geometry.spacing else "unknown", "sec")
    image.header["intent_name"] = FRAMES
    if geometry.time_per_frame and len(maps) > 1:
        image.header.set_zooms((column, row, geometry.time_per_frame))
    nib.save(image, target)


# --- gray values --------------------------------------------------------------------------


def _gray(image: nib.Nifti1Image) -> tuple[np.ndarray, str]:
    """Return the pixels without a colour axis, and a note on unusual axes or ""."""
    pixels = np.asanyarray(image.dataobj)
    if pixels.dtype.fields is not None:  # RGB24, RGBA32
        return to_gray(np.stack([pixels[name] for name in "RGB"], axis=-1)), ""
    if pixels.dtype.kind not in "biuf":
        raise InputError(f"contains {pixels.dtype} instead of gray values. Convert it to gray")
    if pixels.ndim < 3 or pixels.shape[-1] not in (3, 4):
        return pixels, ""
    # The fifth axis of NIfTI contains the components of vectors.
    if pixels.ndim == 5 or int(image.header["intent_code"]) in COLOUR_INTENTS:
        return to_gray(pixels), ""
    ours = bytes(image.header["intent_name"]).rstrip(b"\0") == FRAMES
    if ours or any(size > 1 for size in pixels.shape[2:-1]):
        return pixels, ""
    return gray_or_frames(pixels)


# --- geometry -----------------------------------------------------------------------------


def _affine(header: nib.Nifti1Header) -> np.ndarray | None:
    """Return the affine (4, 4) that states the orientation, or None if there is none."""
    sform, qform = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
    affine = qform if sform is None else sform
    if affine is None or np.allclose(affine[:3, :3], np.eye(3)):
        return None
    if not np.isfinite(affine).all():
        raise InputError(
            "has an affine with NaN or infinite values. Correct the affine, or export the file "
            "again"
        )
    return affine


def _notes_on_pixdim(steps: list[float], layout: Layout) -> list[str]:
    """Return notes on unusual pixel sizes."""
    notes = []
    if min(steps[layout.row], steps[layout.column]) < 0:
        notes.append("states a negative pixel size, whose sign is ignored")
    third = layout.shape[layout.time] if layout.time == 2 and len(layout.shape) > 2 else 1
    alike = math.isclose(steps[2], steps[layout.column], rel_tol=SCALE_TOLERANCE)
    if third > 1 and alike and steps[2] != 1:
        notes.append(
            "has the same pixel size along all three axes, like a volume; its third axis is read "
            "as time"
        )
    return notes


def _geometry(
    sizes: list[float],
    image: nib.Nifti1Image,
    layout: Layout,
    affine: np.ndarray | None,
    shape: tuple[int, ...],
) -> Geometry:
    space, time = image.header.get_xyzt_units()
    factor = MM_PER_UNIT[space]
    spacing = (sizes[layout.row] * factor, sizes[layout.column] * factor)
    problem = ""
    if image.header["sform_code"] > 0:
        norms = np.linalg.norm(image.header.get_sform()[:3, :3], axis=0)
        by_sform = norms[layout.row] * factor, norms[layout.column] * factor
        if not np.allclose(by_sform, spacing, rtol=SCALE_TOLERANCE):
            problem = (
                f"states two scales: {spacing[0]:.4g} x {spacing[1]:.4g} mm per pixel in pixdim, "
                f"and {by_sform[0]:.4g} x {by_sform[1]:.4g} in its sform"
            )
    step = None
    if layout.time > 2 and layout.time < len(sizes) and time in SECONDS_PER_UNIT:
        step = plausible_time_step(sizes[layout.time] * SECONDS_PER_UNIT[time])
    return make_geometry(
        spacing,
        shape[1:],
        problem,
        oriented=layout.oriented,
        affine=layout.affine_of(affine * factor)
        if layout.oriented and affine is not None
        else None,
        time_per_frame=step,
    )


def stored_pixdim(data: bytes, kind: type[nib.Nifti1Header]) -> list[float]:
    """Return the pixel sizes along the axes as they are stored, which may be 0, NaN or negative.

    They are read from the bytes, because nibabel replaces 0 by 1 and drops signs.

    Args:
        data: Decompressed content of the file.
        kind: Class of the header.
    """
    header = kind(data[: kind.sizeof_hdr], check=False)
    return [float(size) for size in header["pixdim"][1:]]
