"""Uploaded files: what they are by their content, how large they say they are, their frames."""

from __future__ import annotations

import gzip
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Literal

from fastapi import HTTPException

from heartseg.data.images import Images, read_images
from heartseg.errors import InputError, one_line
from heartseg.serving.limits import Limits

PNG = b"\x89PNG\r\n\x1a\n"
GZIP = b"\x1f\x8b"
DEFLATED = "1.2.840.10008.1.2.1.99"
"""DICOM's Deflated Explicit VR Little Endian: pydicom unpacks it whole, however large it gets."""
NIFTI_HEADER = 352

ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")

Sizes = tuple[int, int, int]  # frames, height, width


def read_upload(stream: BinaryIO, name: str, limits: Limits) -> Images:
    """The frames of an uploaded file, of which nothing stays on disk.

    Args:
        stream: at its beginning.
        name: for messages only; what the file is, its content tells.
        limits: of the service.

    Raises:
        HTTPException: 400 empty, 413 too many pixels, 415 of another kind, 422 unreadable; the
            detail says what is wrong with which file.
    """
    head = stream.read(NIFTI_HEADER)
    stream.seek(0)
    if not head:
        raise HTTPException(400, f"{name}: is empty")
    ending = _ending(head)
    if ending is None:
        raise HTTPException(415, f"{name}: is neither NIfTI nor PNG nor DICOM; convert it")
    with tempfile.TemporaryDirectory(prefix="heartseg-") as folder:
        path = Path(folder) / f"upload{ending}"
        with path.open("wb") as copy:
            shutil.copyfileobj(stream, copy)
        try:
            _check_sizes(SIZES[ending](path), name, limits)
            return read_images(path)
        except InputError as error:
            reason = str(error).removeprefix(f"{path}: ")
            raise HTTPException(422, f"{name}: {reason}") from None
        except HTTPException:
            raise
        except Exception as error:  # of nibabel, Pillow and pydicom, on a broken header
            reason = one_line(error).replace(str(path), name)
            raise HTTPException(422, f"{name}: cannot be read ({reason})") from None


def _ending(head: bytes) -> str | None:
    """What the first bytes are of."""
    if head.startswith(PNG):
        return ".png"
    if head[128:132] == b"DICM":
        return ".dcm"
    if head.startswith(GZIP):
        return ".nii.gz" if _is_nifti(_unpacked(head)) else None
    return ".nii" if _is_nifti(head) else None


def _unpacked(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, 4)
    except zlib.error:
        return b""


def _is_nifti(head: bytes) -> bool:
    """By the header's length: 348 bytes (NIfTI-1) or 540 (NIfTI-2), in either byte order."""
    first = head[:4]
    return any(int.from_bytes(first, order) in (348, 540) for order in ORDERS)


def _check_sizes(sizes: Sizes, name: str, limits: Limits) -> None:
    """Refuse what would not fit, by what the header says, before anything is unpacked."""
    frames, height, width = sizes
    if frames > limits.frames:
        raise HTTPException(413, f"{name}: has {frames} frames; {limits.frames} are allowed")
    pixels = height * width
    if pixels > limits.frame_pixels or frames * pixels > limits.pixels:
        raise HTTPException(
            413,
            f"{name}: has {frames} frame(s) of {height} x {width} pixels; {limits.frame_pixels} "
            f"are allowed in a frame and {limits.pixels} in all",
        )


def _png_sizes(path: Path) -> Sizes:
    with path.open("rb") as stream:
        width, height = struct.unpack(">II", stream.read(24)[16:])  # of the chunk IHDR
    return 1, height, width


def _nifti_sizes(path: Path) -> Sizes:
    import nibabel as nib

    # The header alone: nibabel would read what its extensions claim as well.
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as stream:
        head = stream.read(nib.Nifti2Header.sizeof_hdr)
    kind = nib.Nifti2Header if nib.Nifti2Header.may_contain_header(head) else nib.Nifti1Header
    shape = kind(head[: kind.sizeof_hdr], check=False).get_data_shape()
    frames = 1
    for size in shape[2:]:
        frames *= size
    return frames, *(shape[1::-1] if len(shape) > 1 else (1, 1))


def _dicom_sizes(path: Path) -> Sizes:
    import pydicom

    # From memory: of a file, an element that claims gigabytes would be given a buffer of that size.
    content = path.read_bytes()
    if DEFLATED.encode() in content:
        raise InputError("is a deflated DICOM file; store it uncompressed, or as JPEG")
    sizes = ["NumberOfFrames", "Rows", "Columns"]  # whose heart it is stays in the file
    dataset = pydicom.dcmread(BytesIO(content), stop_before_pixels=True, specific_tags=sizes)
    return int(dataset.get("NumberOfFrames") or 1), int(dataset.Rows), int(dataset.Columns)


SIZES: dict[str, Callable[[Path], Sizes]] = {
    ".png": _png_sizes,
    ".nii": _nifti_sizes,
    ".nii.gz": _nifti_sizes,
    ".dcm": _dicom_sizes,
}
