"""Compressed frames of DICOM files: what they unpack to, by their own headers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from heartseg.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset

MOST_COLOURS = 4
"""Of a compressed frame; JPEG 2000 can state 16384."""

JPEG_SIZES = {0xDE, 0xF7, *range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""Markers of a JPEG or JPEG-LS segment that states the size: DHP and the kinds of SOF."""
JPEG_BARE = {0x01, *range(0xD0, 0xD9)}
"""Markers without a segment."""


def check_stream(dataset: Dataset, index: int, count: int) -> None:
    """Refuse a compressed frame that unpacks to more than the header of the file says.

    Decoders allocate what the frame itself says: a few bytes can ask for gigabytes.

    Args:
        dataset: the file.
        index: of the frame, from 0.
        count: of the file's frames.

    Raises:
        InputError: the frame is larger than the file's header says.
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
        # at worst, PackBits adds a byte to each row or 128 bytes
        if len(stream) > 1.25 * size + height + 1024:
            raise InputError(
                f"has {len(stream)} bytes compressed, though it holds {size}. Export it again"
            )
        return
    for rows, columns, colours in _stated_sizes(stream):
        if (rows, columns) != (height, width) or colours > MOST_COLOURS:
            raise InputError(
                f"has {rows} x {columns} pixels of {colours} colour(s), though the file's header "
                f"says {height} x {width}. Export it again"
            )


def _stated_sizes(stream: bytes) -> Iterator[tuple[int, int, int]]:
    """Rows, columns and colours in the headers of a JPEG, JPEG-LS or JPEG 2000 stream.

    JPEG: ISO/IEC 10918-1, B.2.2; JPEG-LS: ISO/IEC 14495-1, C.2.2; JPEG 2000: ISO/IEC 15444-1,
    A.5.1, also inside a JP2 file.
    """
    if stream.startswith(b"\xff\xd8"):
        at = 2
        while at + 9 <= len(stream) and stream[at] == 0xFF and stream[at + 1] != 0xDA:
            marker = stream[at + 1]
            if marker == 0xFF:  # filling
                at += 1
                continue
            if marker in JPEG_SIZES:
                yield _big(stream, at + 5, 2), _big(stream, at + 7, 2), _big(stream, at + 9, 1)
            at += 2 + (0 if marker in JPEG_BARE else _big(stream, at + 2, 2))
        return
    at = stream.find(b"\xff\x4f\xff\x51")
    while at >= 0:
        width, height, left, top = (_big(stream, at + 8 + 4 * n, 4) for n in range(4))
        yield height - top, width - left, _big(stream, at + 40, 2)
        at = -1 if at == 0 else stream.find(b"\xff\x4f\xff\x51", at + 4)


def _big(stream: bytes, at: int, size: int) -> int:
    return int.from_bytes(stream[at : at + size], "big")
