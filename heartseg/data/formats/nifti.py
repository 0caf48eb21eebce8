"""NIfTI files, version 1 and 2, packed or not."""

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
    MOST_PIXELS_IN_ALL,
    Images,
    check_size,
    gray_of,
    gray_or_frames,
)
from heartseg.data.formats.pixels import to_uint8 as to_uint8
from heartseg.data.geometry import (
    SAME_SCALE,
    Geometry,
    Layout,
    believed_step,
    find_layout,
    geometry_of,
)
from heartseg.errors import InputError

MM_PER_UNIT = {"mm": 1.0, "unknown": 1.0, "meter": 1000.0, "micron": 0.001}
SECONDS_PER_UNIT = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
COLOUR_INTENTS = {1007, 2003, 2004}
"""NIFTI_INTENT_VECTOR, _RGB_VECTOR, _RGBA_VECTOR of nifti1.h."""
FREE_TEXT = {"descrip", "aux_file", "intent_name", "db_name"}
"""Of a header; converters put names and dates there."""
MOST_BYTES = 256 << 20
"""Of an unpacked file; broken or hostile gzip could unpack to any size."""
GZIP = b"\x1f\x8b"
SMALLER = "Cut a sequence into shorter ones, or export one plane of a volume"
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)
# It prints what it mends in a header, without the file's name. What matters becomes a note here.


def read_bytes(path: Path) -> bytes:
    """The file, unpacked if it is packed, whatever its name.

    It is read to its end, where gzip checks its sum. nibabel then parses memory: a file would be
    asked for as many bytes as a broken length says.

    Raises:
        InputError: its gzip is broken, or it has more than MOST_BYTES.
    """
    with path.open("rb") as stream:
        data = _whole(stream)
    if not data.startswith(GZIP):
        return data
    try:
        with GzipFile(fileobj=BytesIO(data)) as stream:
            return _whole(stream)
    except EOFError:
        raise InputError("is truncated. Copy it again") from None
    except (OSError, zlib.error):
        raise InputError("is damaged: its gzip cannot be unpacked. Copy it again") from None


def _whole(stream: BinaryIO | GzipFile) -> bytes:
    data = stream.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise InputError(
            f"has more than {MOST_BYTES >> 20} MiB. {SMALLER}, or store its gray values in 8 bits"
        )
    return data


def read_nifti(path: Path) -> Images:
    """Read a file; errors of nibabel where it is broken.

    Raises:
        InputError: "reason. Remedy."
    """
    data = read_bytes(path)
    second = header_of(data) is nib.Nifti2Header
    image = (nib.Nifti2Image if second else nib.Nifti1Image).from_bytes(data)
    if math.prod(image.shape) > 4 * MOST_PIXELS_IN_ALL:
        raise InputError(
            f"has shape {image.shape}, more than {4 * MOST_PIXELS_IN_ALL} values. {SMALLER}"
        )
    pixels, colour = _gray(image)
    affine, orientation = _affine(image.header)
    layout = find_layout(pixels.shape, affine)
    frames = layout.to_frames(pixels)
    check_size(frames.shape[1], frames.shape[2], len(frames))
    steps = stored_sizes(data, type(image.header))
    notes = [*(colour, orientation, layout.note), *_odd_sizes(steps, image, layout)]
    return Images(
        frames,
        _geometry([abs(step) for step in steps], image, layout, affine, frames.shape),
        lambda maps, place: _save(image, layout, maps, place),
        ".nii.gz",
        tuple(note for note in notes if note),
    )


def header_of(data: bytes) -> type[nib.Nifti1Header]:
    """The kind of header that a file begins with.

    Args:
        data: the file, unpacked, or its beginning.

    Raises:
        InputError: it is not NIfTI, or not all of it.
    """
    sizes = {int.from_bytes(data[:4], order) for order in ("little", "big")}
    if not {348, 540} & sizes:
        raise InputError(f"is packed by gzip, and what is in it {_other_than_nifti(data)}")
    if len(data) < nib.Nifti1Header.sizeof_hdr:
        raise InputError("is truncated. Copy it again")
    if 540 in sizes:
        return nib.Nifti2Header
    if data[344:347] != b"n+1":
        raise InputError(
            "has a header of Analyze, or of NIfTI with its pixels in another file (.hdr and .img). "
            "Save it as one .nii file"
        )
    return nib.Nifti1Header


def _other_than_nifti(data: bytes) -> str:
    from heartseg.data.images import kind_of, not_understood

    if data[257:262] == b"ustar":
        return "is a tar archive. Unpack it"
    kind = kind_of(data)
    return f"is {kind.upper()}. Unpack it" if kind and kind != "nifti" else not_understood(data)


FRAMES = b"frames"
"""Name in the header of what heartseg writes: three frames of label maps are often equal, as three
channels of gray pictures are."""


def _save(image: nib.Nifti1Image, layout: Layout, maps: np.ndarray, place: Path) -> None:
    header = image.header.copy()
    for field in FREE_TEXT & set(header.keys()):
        header[field] = b""
    header.extensions.clear()  # may hold a whole DICOM header
    header.set_data_dtype(maps.dtype)
    header.set_slope_inter(1, 0)
    header["intent_code"] = 0  # of colours
    header["intent_name"] = FRAMES
    header["cal_min"], header["cal_max"] = 0, 0  # the display range of the gray values
    # without an affine of its own, nibabel makes one of the spacing, which may be NaN
    affine = image.affine if np.isfinite(image.affine).all() else np.eye(4)
    nib.save(type(image)(layout.to_stored(maps), affine, header), place)


def write_maps(maps: np.ndarray, place: Path, geometry: Geometry) -> None:
    """Write maps (T, H, W) of a file of another format, with the axes of the CAMUS release."""
    row, column = geometry.spacing or (1.0, 1.0)
    stored = maps.transpose(2, 1, 0)
    image = nib.Nifti1Image(
        stored if len(maps) > 1 else stored[..., 0], np.diag([-column, -row, 1.0, 1.0])
    )
    image.header.set_xyzt_units("mm" if geometry.spacing else "unknown", "sec")
    image.header["intent_name"] = FRAMES
    if geometry.time_per_frame and len(maps) > 1:
        image.header.set_zooms((column, row, geometry.time_per_frame))
    nib.save(image, place)


# --- gray values --------------------------------------------------------------------------


def _gray(image: nib.Nifti1Image) -> tuple[np.ndarray, str]:
    """Pixels without an axis of colours, and a note on what was decided."""
    pixels = np.asanyarray(image.dataobj)
    if pixels.dtype.fields is not None:  # RGB24, RGBA32
        return gray_of(np.stack([pixels[name] for name in "RGB"], axis=-1)), ""
    if pixels.dtype.kind not in "biuf":
        raise InputError(f"holds {pixels.dtype}, not gray values. Convert it to gray")
    if pixels.ndim < 3 or pixels.shape[-1] not in (3, 4):
        return pixels, ""
    # the fifth axis of NIfTI holds the parts of a vector
    if pixels.ndim == 5 or int(image.header["intent_code"]) in COLOUR_INTENTS:
        return gray_of(pixels), ""
    own = bytes(image.header["intent_name"]).rstrip(b"\0") == FRAMES
    if own or any(size > 1 for size in pixels.shape[2:-1]):
        return pixels, ""
    return gray_or_frames(pixels)


# --- where they lie -----------------------------------------------------------------------


def _affine(header: nib.Nifti1Header) -> tuple[np.ndarray | None, str]:
    """The affine (4, 4) that says how the axes lie, None if none does, and a note on it."""
    sform, qform = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
    affine = qform if sform is None else sform
    if affine is None or np.allclose(affine[:3, :3], np.eye(3)):
        return None, ""
    if not np.isfinite(affine).all():
        raise InputError("states an affine with NaN or infinity. Mend it, or export it again")
    return affine, ""


def _odd_sizes(steps: list[float], image: nib.Nifti1Image, layout: Layout) -> list[str]:
    """Notes on the sizes of a pixel."""
    notes = []
    if min(steps[layout.row], steps[layout.column]) < 0:
        notes.append("states a negative pixel size, the sign of which is ignored")
    third = layout.shape[layout.time] if layout.time == 2 and len(layout.shape) > 2 else 1
    alike = math.isclose(steps[2], steps[layout.column], rel_tol=SAME_SCALE)
    if third > 1 and alike and steps[2] != 1:
        notes.append(
            "has pixels of the same size along all three axes, as a volume has; its third axis is "
            "taken as time"
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
    doubt = ""
    if image.header["sform_code"] > 0:
        norms = np.linalg.norm(image.header.get_sform()[:3, :3], axis=0)
        by_sform = norms[layout.row] * factor, norms[layout.column] * factor
        if not np.allclose(by_sform, spacing, rtol=SAME_SCALE):
            doubt = (
                f"states two scales: {spacing[0]:.4g} x {spacing[1]:.4g} mm per pixel in pixdim, "
                f"{by_sform[0]:.4g} x {by_sform[1]:.4g} in its sform"
            )
    step = None
    if layout.time > 2 and layout.time < len(sizes) and time in SECONDS_PER_UNIT:
        step = believed_step(sizes[layout.time] * SECONDS_PER_UNIT[time])
    return geometry_of(
        spacing,
        shape[1:],
        doubt,
        oriented=layout.oriented,
        affine=layout.affine_of(affine * factor)
        if layout.oriented and affine is not None
        else None,
        time_per_frame=step,
    )


def stored_sizes(data: bytes, kind: type[nib.Nifti1Header]) -> list[float]:
    """The sizes of a pixel along the axes as the header has them: also 0, NaN, or negative.

    Read from the bytes: nibabel turns a size of 0 into 1, and drops signs.

    Args:
        data: the file, unpacked.
        kind: of its header; that of NIfTI-2 is longer.
    """
    header = kind(data[: kind.sizeof_hdr], check=False)
    return [float(size) for size in header["pixdim"][1:]]
