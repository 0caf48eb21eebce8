"""MetaImage files: an .mhd file with its pixels in a .raw or .zraw file beside it, or an .mha file.

The CAMUS release was in this format before it was converted to NIfTI.
"""

from __future__ import annotations

import math
import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heartseg.data.formats.pixels import (
    MAX_TOTAL_PIXELS,
    Images,
    check_size,
    gray_or_frames,
    to_gray,
)
from heartseg.data.geometry import Layout, find_layout, make_geometry
from heartseg.errors import InputError

if TYPE_CHECKING:
    import SimpleITK as sitk

MAX_HEADER_BYTES = 1 << 16
ORIENTATIONS = ("TransformMatrix", "Orientation", "Rotation")
SIZES = ("ElementSpacing", "ElementSize")
BYTES = {
    **{"MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4},
    **{"MET_UINT": 4, "MET_FLOAT": 4, "MET_DOUBLE": 8, "MET_LONG": 4, "MET_ULONG": 4},
}
"""Bytes of a value. MET_LONG has 4 bytes on disk on every machine."""
LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])  # ITK's axes are L, P, S


def read_metaimage(path: Path) -> Images:
    """Read a file. `Images.save` writes a compressed .mha file on the grid of the file.

    Raises:
        InputError: The file cannot be read. The message has the form "reason. Remedy".
    """
    import SimpleITK as sitk

    header = read_header(path, check_pixels=True)
    try:
        image = sitk.ReadImage(str(path), imageIO="MetaImageIO")
    except RuntimeError:  # the message of ITK is long and names lines of its source
        raise InputError(
            f"is damaged: {_pixel_file(header, path).name} does not contain the pixels that the "
            "header states. Copy or export it again"
        ) from None
    pixels = sitk.GetArrayFromImage(image)  # (..., y, x[, channel]), a copy
    note = ""
    if image.GetNumberOfComponentsPerPixel() > 1:
        pixels = to_gray(np.moveaxis(pixels.T, 0, -1))
    else:
        pixels = pixels.T
        if pixels.ndim > 2 and pixels.shape[-1] in (3, 4) and math.prod(pixels.shape[2:]) < 5:
            pixels, note = gray_or_frames(pixels)
    affine = _affine(image) if any(key in header for key in ORIENTATIONS) else None
    layout = find_layout(pixels.shape, affine)
    frames = layout.to_frames(pixels)
    steps = image.GetSpacing()
    stated = any(key in header for key in SIZES)
    geometry = make_geometry(
        (steps[layout.row], steps[layout.column]) if stated else None,
        frames.shape[1:],
        oriented=layout.oriented,
        affine=layout.affine_of(affine) if layout.oriented and affine is not None else None,
    )
    return Images(
        frames,
        geometry,
        lambda maps, target: _save(image, layout, maps, target),
        ".mha",
        tuple(one for one in (note, layout.note) if one),
    )


def read_header(path: Path, *, check_pixels: bool = False) -> dict[str, str]:
    """Read the fields of the header, and check those that ITK does not check.

    Args:
        path: Path of the file.
        check_pixels: Whether compressed pixels are checked as well.

    Raises:
        InputError: The header is invalid. The message has the form "reason. Remedy".
    """
    with path.open("rb") as stream:
        text = stream.read(MAX_HEADER_BYTES).decode("latin-1")
    fields: dict[str, str] = {}
    end = 0
    for line in text.split("\n"):
        end += len(line) + 1
        key, _, value = (part.strip() for part in line.partition("="))
        fields[key] = value
        if key == "ElementDataFile":
            break
    else:
        raise InputError("has no ElementDataFile in its header. Export it again")
    sizes = shape_of(fields)
    for key in SIZES:
        try:
            [float(word) for word in fields.get(key, "").split()]
        except ValueError:
            stated = f"its header states {key} = {fields[key][:40]!r}"
            raise InputError(f"{stated}. Write numbers with decimal points") from None
    kind = fields.get("ElementType", "").removesuffix("_ARRAY")
    if kind not in BYTES:
        raise InputError(
            f"its header states ElementType = {kind[:40]!r}, which is not supported. Save it as "
            "MET_UCHAR"
        )
    pixels = _pixel_file(fields, path)
    if not pixels.is_file():
        raise InputError(
            f"its pixels are in {pixels.name}, which is not in the same folder. Copy both files, "
            "or save the image as one .mha file"
        )
    channels = _positive_integer(
        fields.get("ElementNumberOfChannels", "1"), "ElementNumberOfChannels"
    )
    compressed = fields.get("CompressedData", "False").lower().startswith(("t", "1", "y"))
    expected = math.prod(sizes) * channels * BYTES[kind]
    if channels > 4 or math.prod(sizes) * channels > 4 * MAX_TOTAL_PIXELS:
        raise InputError(f"has {' x '.join(map(str, sizes))} pixels. Export one plane of it")
    start = end if pixels == path else 0
    if compressed and check_pixels:
        _check_compressed(pixels, start, expected)
    if not compressed and (found := pixels.stat().st_size - start) < expected:
        raise InputError(
            f"is truncated: {pixels.name} has {found} of {expected} bytes of pixels. Copy it again"
        )
    return fields


def _check_compressed(pixels: Path, start: int, expected: int) -> None:
    """Check compressed pixels, because ITK only prints a warning if they are damaged.

    Args:
        pixels: File that contains the pixels.
        start: Position of the first compressed byte in the file.
        expected: Number of decompressed bytes.

    Raises:
        InputError: The pixels are damaged. The message has the form "reason. Remedy".
    """
    with pixels.open("rb") as stream:
        stream.seek(start)
        compressed = stream.read(2 * expected + 1024)
    decompressor = zlib.decompressobj(zlib.MAX_WBITS | 32)  # zlib or gzip
    try:
        found = len(decompressor.decompress(compressed, expected))
        found += len(decompressor.decompress(decompressor.unconsumed_tail, 1))  # the checksum
    except zlib.error:
        found = 0
    if found != expected or not decompressor.eof:
        raise InputError(
            f"is damaged: {pixels.name} does not contain the pixels that the header states. Copy "
            "or export it again"
        )


def shape_of(fields: dict[str, str]) -> tuple[int, ...]:
    """Return the shape of the stored array (x, y, ...).

    Raises:
        InputError: The header does not state it, or it is not that of images.
    """
    axes = _positive_integer(fields.get("NDims", ""), "NDims")
    sizes = tuple(_positive_integer(word, "DimSize") for word in fields.get("DimSize", "").split())
    if not 2 <= axes <= 4 or len(sizes) != axes:
        raise InputError(
            f"its header states NDims = {axes} and DimSize = {fields.get('DimSize', '')!r}, but it "
            "must have 2 to 4 axes. Export it again"
        )
    check_size(max(sizes[:3]), sorted((*sizes[:3], 1))[-2])
    return sizes


def _positive_integer(word: str, key: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,8}", word):
        raise InputError(
            f"its header states {key} = {word[:40]!r}, which is not a positive integer. Export it "
            "again"
        )
    return int(word)


def _pixel_file(fields: dict[str, str], path: Path) -> Path:
    """Return the file that contains the pixels, which must be in the folder of the header."""
    name = fields["ElementDataFile"]
    if name.upper() == "LOCAL":
        return path
    if not name or name.upper().startswith("LIST") or re.search(r"[/\\%\0]|^\.\.?$", name):
        raise InputError(
            f"its pixels are in {name[:80]!r}, but must be in one file in the same folder. Save "
            "the image as one .mha file"
        )
    return path.with_name(name)


def _affine(image: sitk.Image) -> np.ndarray:
    """Return the affine (4, 4) that maps the first three axes to mm (R, A, S)."""
    count = image.GetDimension()
    axes = min(count, 3)
    direction = np.reshape(image.GetDirection(), (count, count))[:axes, :axes]
    affine = np.eye(4)
    affine[:axes, :axes] = direction * np.array(image.GetSpacing())[:axes]
    affine[:axes, 3] = np.array(image.GetOrigin())[:axes]
    affine[:3] *= LPS_TO_RAS[:, None]
    return affine


def _save(image: sitk.Image, layout: Layout, maps: np.ndarray, target: Path) -> None:
    import SimpleITK as sitk

    stored = layout.to_stored(maps)
    result: Any = sitk.GetImageFromArray(np.ascontiguousarray(stored.T), isVector=False)
    count, axes = image.GetDimension(), stored.ndim
    direction = np.reshape(image.GetDirection(), (count, count))[:axes, :axes]
    result.SetSpacing(image.GetSpacing()[:axes])
    result.SetOrigin(image.GetOrigin()[:axes])
    result.SetDirection(direction.ravel().tolist())
    sitk.WriteImage(result, str(target), useCompression=True)
