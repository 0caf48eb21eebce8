"""Uploaded files: their kind by content, their size by header, and their frames."""

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
"""DICOM's Deflated Explicit VR Little Endian. pydicom inflates it without a limit."""

Sizes = tuple[int, int, int]  # frames, height, width


def read_uploads(
    uploads: Sequence[tuple[BinaryIO, str]], limits: Limits, reserve: Callable[[int], None]
) -> list[Images]:
    """Read the files of a request. Their temporary copies on disk are deleted.

    Args:
        uploads: Stream and name of each file. The name is used in messages only; the kind of a
            file follows from its content.
        limits: Limits of the service.
        reserve: Function that reserves pixels, see `heartseg.serving.limits.PixelBudget`. It is
            called with the pixels that the headers state before any file is decoded.

    Raises:
        HTTPException: 400 if a file is empty, 413 if it has too many pixels, 415 if it is of
            another kind, 422 if it cannot be read, 503 if there is no memory now. The detail names
            the file and the reason.
    """
    with tempfile.TemporaryDirectory(prefix="heartseg-") as folder:
        paths = [Path(folder) / str(number) for number in range(len(uploads))]
        sizes = []
        for path, (stream, name) in zip(paths, uploads, strict=True):
            kind = _kind(stream, name)
            with path.open("wb") as copy:
                shutil.copyfileobj(stream, copy)
            with _http_errors(path, name):
                sizes.append(SIZES[kind](path))
            _check_sizes(sizes[-1], name, limits)
        reserve(sum(map(math.prod, sizes)))
        files = []
        for path, (_, name), expected in zip(paths, uploads, sizes, strict=True):
            with _http_errors(path, name):
                files.append(read_images(path))
            _check_sizes(files[-1].frames.shape, name, limits)  # the header of a video may be wrong
            reserve(max(files[-1].frames.size - math.prod(expected), 0))
        return files


def _kind(stream: BinaryIO, name: str) -> str:
    """Return the kind of the content. The stream is rewound."""
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
def _http_errors(path: Path, name: str) -> Iterator[None]:
    """Turn errors about a file into an HTTPException that contains its uploaded name."""
    try:
        yield
    except InputError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise HTTPException(422, f"{name}: {reason}") from None
    except Image.DecompressionBombError:
        raise HTTPException(413, f"{name}: has more pixels than allowed") from None
    except Exception as error:  # nibabel, Pillow and pydicom raise any exception on a broken header
        reason = one_line(error).replace(str(path), name)
        raise HTTPException(422, f"{name}: cannot be read ({reason})") from None


def _unpacked(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, SIGNATURE_BYTES)
    except zlib.error:
        return b""


def _check_sizes(sizes: tuple[int, ...], name: str, limits: Limits) -> None:
    """Refuse files that are too large according to their header, before they are decoded."""
    frames, height, width = sizes
    if frames < 0 or min(height, width) < 1:  # negative counts would enlarge the budget
        raise HTTPException(422, f"{name}: states {frames} frame(s) of {height} x {width} pixels")
    if frames > limits.frames:
        raise HTTPException(
            413, f"{name}: has {frames} frames; at most {limits.frames} are allowed"
        )
    pixels = height * width
    if pixels > limits.frame_pixels or frames * pixels > limits.pixels:
        raise HTTPException(
            413,
            f"{name}: has {frames} frame(s) of {height} x {width} pixels; at most "
            f"{limits.frame_pixels} are allowed in a frame and {limits.pixels} in total",
        )


def _picture_sizes(kind: str) -> Callable[[Path], Sizes]:
    def read(path: Path) -> Sizes:
        with Image.open(path, formats=[kind]) as image:  # reads only the header
            return getattr(image, "n_frames", 1), image.height, image.width

    return read


def _nifti_sizes(path: Path) -> Sizes:
    import nibabel as nib

    # Only the header: nibabel would also read the extensions, of any claimed size.
    with path.open("rb") as stream:
        packed = stream.read(len(GZIP)) == GZIP
    with (gzip.open if packed else open)(path, "rb") as stream:
        head = stream.read(nib.Nifti2Header.sizeof_hdr)
    kind = header_class(head)
    shape = [int(size) for size in kind(head[: kind.sizeof_hdr], check=False).get_data_shape()]
    sides = [size for size in shape[:3] if size != 1][
        :2
    ]  # any of the three axes may be that of the slices
    if len(sides) < 2 or min(shape) < 1:
        raise InputError(f"has shape {tuple(shape)}, which is not an image. Export it again")
    return math.prod(shape) // math.prod(sides), sides[1], sides[0]


def _dicom_sizes(path: Path) -> Sizes:
    import pydicom

    # From memory: when reading a file, pydicom allocates the claimed size of an element.
    content = path.read_bytes()
    if DEFLATED.encode() in content:
        raise InputError("is a deflated DICOM file; store it uncompressed, or as JPEG")
    wanted = ["NumberOfFrames", "SOPClassUID", *DICOM_SIZES]  # no patient data
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
