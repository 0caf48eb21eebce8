"""Uploaded files: what they are by their content, how large they say they are, their frames."""

from __future__ import annotations

import gzip
import math
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from fastapi import HTTPException
from PIL import Image

from heartseg.data.formats.dicom_header import SIZE_TAGS as DICOM_SIZES
from heartseg.data.formats.dicom_header import check_has_pixels
from heartseg.data.formats.nifti import GZIP, header_class
from heartseg.data.images import (
    SIGNATURE_BYTES,
    Images,
    describe_unsupported,
    detect_format,
    read_images,
)
from heartseg.errors import InputError, one_line
from heartseg.serving.limits import Limits

DEFLATED = "1.2.840.10008.1.2.1.99"
"""DICOM's Deflated Explicit VR Little Endian: pydicom unpacks it whole, however large it gets."""

Sizes = tuple[int, int, int]  # frames, height, width


def read_uploads(
    uploads: Sequence[tuple[BinaryIO, str]], limits: Limits, take: Callable[[int], None]
) -> list[Images]:
    """The frames of a request's files, of which nothing stays on disk.

    Args:
        uploads: a stream at its beginning and a name of each file. The name is for messages only:
            what the file is, its content tells.
        limits: of the service.
        take: takes so many pixels of `heartseg.serving.limits.PixelBudget`. It is called with those
            of all files, by what their headers say, before anything is decoded.

    Raises:
        HTTPException: 400 empty, 413 too many pixels, 415 of another kind, 422 unreadable; the
            detail says what is wrong with which file. 503 no memory now.
    """
    with tempfile.TemporaryDirectory(prefix="heartseg-") as folder:
        paths = [Path(folder) / str(number) for number in range(len(uploads))]
        sizes = []
        for path, (stream, name) in zip(paths, uploads, strict=True):
            kind = _kind(stream, name)
            with path.open("wb") as copy:
                shutil.copyfileobj(stream, copy)
            with _told(path, name):
                sizes.append(SIZES[kind](path))
            _check_sizes(sizes[-1], name, limits)
        take(sum(map(math.prod, sizes)))
        files = []
        for path, (_, name), expected in zip(paths, uploads, sizes, strict=True):
            with _told(path, name):
                files.append(read_images(path))
            _check_sizes(files[-1].frames.shape, name, limits)  # a video's header may not tell
            take(max(files[-1].frames.size - math.prod(expected), 0))
        return files


def _kind(stream: BinaryIO, name: str) -> str:
    """What the content is, which leaves the stream at its beginning."""
    head = stream.read(SIGNATURE_BYTES)
    stream.seek(0)
    if not head:
        raise HTTPException(400, f"{name}: is empty")
    kind = detect_format(head)
    try:
        if kind is None:
            raise InputError(describe_unsupported(head))
        if head.startswith(GZIP):
            header_class(_unpacked(head))
    except InputError as error:
        raise HTTPException(415, f"{name}: {error}") from None
    return kind


@contextmanager
def _told(path: Path, name: str) -> Iterator[None]:
    """Give what goes wrong with a file as HTTPException, under its own name."""
    try:
        yield
    except InputError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise HTTPException(422, f"{name}: {reason}") from None
    except Image.DecompressionBombError:
        raise HTTPException(413, f"{name}: has more pixels than are allowed") from None
    except Exception as error:  # of nibabel, Pillow and pydicom, on a broken header
        reason = one_line(error).replace(str(path), name)
        raise HTTPException(422, f"{name}: cannot be read ({reason})") from None


def _unpacked(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, SIGNATURE_BYTES)
    except zlib.error:
        return b""


def _check_sizes(sizes: tuple[int, ...], name: str, limits: Limits) -> None:
    """Refuse what would not fit, by what the header says, before anything is unpacked."""
    frames, height, width = sizes
    if frames < 0 or min(height, width) < 1:  # which would give the others more than there is
        raise HTTPException(422, f"{name}: states {frames} frame(s) of {height} x {width} pixels")
    if frames > limits.frames:
        raise HTTPException(413, f"{name}: has {frames} frames; {limits.frames} are allowed")
    pixels = height * width
    if pixels > limits.frame_pixels or frames * pixels > limits.pixels:
        raise HTTPException(
            413,
            f"{name}: has {frames} frame(s) of {height} x {width} pixels; {limits.frame_pixels} "
            f"are allowed in a frame and {limits.pixels} in all",
        )


def _picture_sizes(kind: str) -> Callable[[Path], Sizes]:
    def read(path: Path) -> Sizes:
        with Image.open(path, formats=[kind]) as image:  # reads the header alone
            return getattr(image, "n_frames", 1), image.height, image.width

    return read


def _nifti_sizes(path: Path) -> Sizes:
    import nibabel as nib

    # The header alone: nibabel would read what its extensions claim as well.
    with path.open("rb") as stream:
        packed = stream.read(len(GZIP)) == GZIP
    with (gzip.open if packed else open)(path, "rb") as stream:
        head = stream.read(nib.Nifti2Header.sizeof_hdr)
    kind = header_class(head)
    shape = [int(size) for size in kind(head[: kind.sizeof_hdr], check=False).get_data_shape()]
    sides = [size for size in shape[:3] if size != 1][:2]  # any of the three may be that of slices
    if len(sides) < 2 or min(shape) < 1:
        raise InputError(f"has shape {tuple(shape)}, which is no picture. Export it again")
    return math.prod(shape) // math.prod(sides), sides[1], sides[0]


def _dicom_sizes(path: Path) -> Sizes:
    import pydicom

    # From memory: of a file, an element that claims gigabytes would be given a buffer of that size.
    content = path.read_bytes()
    if DEFLATED.encode() in content:
        raise InputError("is a deflated DICOM file; store it uncompressed, or as JPEG")
    wanted = ["NumberOfFrames", "SOPClassUID", *DICOM_SIZES]  # whose heart it is stays in the file
    dataset = pydicom.dcmread(BytesIO(content), stop_before_pixels=True, specific_tags=wanted)
    check_has_pixels(dataset, DICOM_SIZES)
    return int(dataset.get("NumberOfFrames") or 1), int(dataset.Rows), int(dataset.Columns)


def _metaimage_sizes(path: Path) -> Sizes:
    from heartseg.data.formats.metaimage import read_header, shape_of

    width, height, *more = shape_of(read_header(path))
    return math.prod(more), height, width


def _video_sizes(kind: str) -> Callable[[Path], Sizes]:
    def read(path: Path) -> Sizes:
        from heartseg.data.formats.video import read_sizes

        return read_sizes(path, kind)

    return read


SIZES: dict[str, Callable[[Path], Sizes]] = {
    "nifti": _nifti_sizes,
    "metaimage": _metaimage_sizes,
    "png": _picture_sizes("PNG"),
    "jpeg": _picture_sizes("JPEG"),
    "tiff": _picture_sizes("TIFF"),
    "dicom": _dicom_sizes,
    "avi": _video_sizes("avi"),
    "mp4": _video_sizes("mp4"),
}
