"""Check the size of compressed frames of DICOM files before they are decoded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from heartseg.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset

MAX_COLOURS = 4
"""Largest number of channels of a compressed frame. JPEG 2000 could state 16384."""

JPEG_SIZES = {0xDE, 0xF7, *range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""Markers of the JPEG and JPEG-LS segments that state the size: DHP and all SOF."""
JPEG_BARE = {0x01, *range(0xD0, 0xD9)}
"""Markers that are not followed by a segment."""


def check_stream(dataset: Dataset, index: int, count: int) -> None:
    """Check that a compressed frame is not larger than the header of the file states.

    Decoders allocate the size that the frame itself states, so a few bytes can request gigabytes.

    Args:
        dataset: Result of `open_dicom`.
        index: Number of the frame, from 0.
        count: Number of frames of the file.

    Raises:
        InputError: The frame is larger than the header states.
    """
    from pydicom.encaps import get_frame
    from pydicom.uid import RLELossless

    offsets = (dataset.get("ExtendedOffsetTable"), dataset.get("ExtendedOffsetTableLengths"))
    stream = get_frame(
        dataset.PixelData,
        index,
        number_of_frames=count,
        extended_offsets=offsets if all(offsets) else None,
    )
    height, width = int(dataset.Rows), int(dataset.Columns)
    if dataset.file_meta.TransferSyntaxUID == RLELossless:
        size = height * width * dataset.SamplesPerPixel * dataset.BitsAllocated // 8
        # In the worst case, PackBits adds a byte to each row or to each 128 bytes.
        if len(stream) > 1.25 * size + height + 1024:
            raise InputError(
                f"has {len(stream)} compressed bytes, but only {size} uncompressed ones. Export "
                "the file again"
            )
        return
    for rows, columns, colours in _stated_sizes(stream):
        if (rows, columns) != (height, width) or colours > MAX_COLOURS:
            raise InputError(
                f"has {rows} x {columns} pixels of {colours} colour(s), but the header of the file "
                f"states {height} x {width} pixels. Export the file again"
            )


def _stated_sizes(stream: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (rows, columns, colours) of each header in a JPEG, JPEG-LS or JPEG 2000 stream.

    The formats are specified in ISO/IEC 10918-1, B.2.2 (JPEG), ISO/IEC 14495-1, C.2.2 (JPEG-LS) and
    ISO/IEC 15444-1, A.5.1 (JPEG 2000, which may be inside a JP2 file).
    """
    if stream.startswith(b"\xff\xd8"):
        at = 2
        while at + 9 <= len(stream) and stream[at] == 0xFF and stream[at + 1] != 0xDA:
            marker = stream[at + 1]
            if marker == 0xFF:  # padding
                at += 1
                continue
            if marker in JPEG_SIZES:
                yield (
                    _read_uint(stream, at + 5, 2),
                    _read_uint(stream, at + 7, 2),
                    _read_uint(stream, at + 9, 1),
                )
            at += 2 + (0 if marker in JPEG_BARE else _read_uint(stream, at + 2, 2))
        return
    at = stream.find(b"\xff\x4f\xff\x51")
    while at >= 0:
        width, height, left, top = (_read_uint(stream, at + 8 + 4 * n, 4) for n in range(4))
        yield height - top, width - left, _read_uint(stream, at + 40, 2)
        at = -1 if at == 0 else stream.find(b"\xff\x4f\xff\x51", at + 4)


def _read_uint(stream: bytes, at: int, size: int) -> int:
    return int.from_bytes(stream[at : at + size], "big")
