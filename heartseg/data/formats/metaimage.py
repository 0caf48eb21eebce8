"""MetaImage files: .mhd with its pixels in a .raw or .zraw file beside it, or all in one .mha.

The CAMUS release had this form before it was converted to NIfTI.
"""

from __future__ import annotations

import math
import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heartseg.data.formats.pixels import (
    MOST_PIXELS_IN_ALL,
    Images,
    check_size,
    gray_of,
    gray_or_frames,
)
from heartseg.data.geometry import Layout, find_layout, geometry_of
from heartseg.errors import InputError

if TYPE_CHECKING:
    import SimpleITK as sitk

LONGEST_HEADER = 1 << 16
ORIENTATIONS = ("TransformMatrix", "Orientation", "Rotation")
SIZES = ("ElementSpacing", "ElementSize")
BYTES = {
    **{"MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4},
    **{"MET_UINT": 4, "MET_FLOAT": 4, "MET_DOUBLE": 8, "MET_LONG": 4, "MET_ULONG": 4},
}
"""Of a value. MET_LONG has 4 on disk whatever the machine."""
RAS = np.array([-1.0, -1.0, 1.0])  # from ITK's axes, which are L, P, S


def read_metaimage(path: Path) -> Images:
    """Read a file. Label maps are saved as one compressed .mha file on the file's own grid.

    Raises:
        InputError: "reason. Remedy."
    """
    import SimpleITK as sitk

    header = read_header(path, unpack=True)
    try:
        image = sitk.ReadImage(str(path), imageIO="MetaImageIO")
    except RuntimeError:  # of ITK, with lines of its own source
        raise InputError(
            f"is damaged: {_pixels_of(header, path).name} does not hold the pixels that the header "
            "states. Copy or export it again"
        ) from None
    pixels = sitk.GetArrayFromImage(image)  # (..., y, x[, channel]); a view would outlive its image
    note = ""
    if image.GetNumberOfComponentsPerPixel() > 1:
        pixels = gray_of(np.moveaxis(pixels.T, 0, -1))
    else:
        pixels = pixels.T
        if pixels.ndim > 2 and pixels.shape[-1] in (3, 4) and math.prod(pixels.shape[2:]) < 5:
            pixels, note = gray_or_frames(pixels)
    affine = _affine(image) if any(key in header for key in ORIENTATIONS) else None
    layout = find_layout(pixels.shape, affine)
    frames = layout.to_frames(pixels)
    steps = image.GetSpacing()
    stated = any(key in header for key in SIZES)
    geometry = geometry_of(
        (steps[layout.row], steps[layout.column]) if stated else None,
        frames.shape[1:],
        oriented=layout.oriented,
        affine=layout.affine_of(affine) if layout.oriented and affine is not None else None,
    )
    return Images(
        frames,
        geometry,
        lambda maps, place: _save(image, layout, maps, place),
        ".mha",
        tuple(one for one in (note, layout.note) if one),
    )


def read_header(path: Path, *, unpack: bool = False) -> dict[str, str]:
    """The fields of the header, of which what ITK would trust blindly is checked.

    Args:
        path: of the file.
        unpack: whether packed pixels are checked, too.

    Raises:
        InputError: "reason. Remedy."
    """
    with path.open("rb") as stream:
        text = stream.read(LONGEST_HEADER).decode("latin-1")
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
            raise InputError(f"{stated}. Write numbers with a decimal point") from None
    kind = fields.get("ElementType", "").removesuffix("_ARRAY")
    if kind not in BYTES:
        raise InputError(
            f"holds {kind or 'values of no stated type'}, not gray values. Save it as MET_UCHAR"
        )
    pixels = _pixels_of(fields, path)
    if not pixels.is_file():
        raise InputError(
            f"its pixels are in {pixels.name}, which is not beside it. Copy both files, or save "
            "the image as one .mha file"
        )
    channels = _whole(fields.get("ElementNumberOfChannels", "1"), "ElementNumberOfChannels")
    packed = fields.get("CompressedData", "False").lower().startswith(("t", "1", "y"))
    expected = math.prod(sizes) * channels * BYTES[kind]
    if channels > 4 or math.prod(sizes) * channels > 4 * MOST_PIXELS_IN_ALL:
        raise InputError(f"has {' x '.join(map(str, sizes))} pixels. Export one plane of it")
    start = end if pixels == path else 0
    if packed and unpack:
        _check_packed(pixels, start, expected)
    if not packed and (found := pixels.stat().st_size - start) < expected:
        raise InputError(
            f"is truncated: {pixels.name} has {found} bytes of pixels, which take {expected}. Copy "
            "it again"
        )
    return fields


def _check_packed(pixels: Path, start: int, expected: int) -> None:
    """Refuse pixels whose packing is broken: ITK prints that they are, and goes on with them.

    Args:
        pixels: the file.
        start: of the packed pixels in it.
        expected: bytes of the pixels, unpacked.

    Raises:
        InputError: "reason. Remedy."
    """
    with pixels.open("rb") as stream:
        stream.seek(start)
        packed = stream.read(2 * expected + 1024)
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 32)  # zlib or gzip
    try:
        found = len(unpacking.decompress(packed, expected))
        found += len(unpacking.decompress(unpacking.unconsumed_tail, 1))  # its sum, at the end
    except zlib.error:
        found = 0
    if found != expected or not unpacking.eof:
        raise InputError(
            f"is damaged: {pixels.name} does not hold the pixels that the header states. Copy or "
            "export it again"
        )


def shape_of(fields: dict[str, str]) -> tuple[int, ...]:
    """The sizes of the stored array (x, y, ...).

    Raises:
        InputError: the header does not state them.
    """
    axes = _whole(fields.get("NDims", ""), "NDims")
    sizes = tuple(_whole(word, "DimSize") for word in fields.get("DimSize", "").split())
    if not 2 <= axes <= 4 or len(sizes) != axes:
        raise InputError(
            f"its header states NDims = {axes} and DimSize = {fields.get('DimSize', '')!r}; wanted "
            "are 2 to 4 axes. Export it again"
        )
    check_size(max(sizes[:3]), sorted((*sizes[:3], 1))[-2])
    return sizes


def _whole(word: str, key: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,8}", word):
        raise InputError(f"its header states {key} = {word[:40]!r}. Export it again")
    return int(word)


def _pixels_of(fields: dict[str, str], path: Path) -> Path:
    """The file that holds the pixels: never one outside the file's own folder."""
    name = fields["ElementDataFile"]
    if name.upper() == "LOCAL":
        return path
    if not name or name.upper().startswith("LIST") or re.search(r"[/\\%\0]|^\.\.?$", name):
        raise InputError(
            f"its pixels are in {name[:80]!r}; wanted is one file beside it. Save the image as one "
            ".mha file"
        )
    return path.with_name(name)


def _affine(image: sitk.Image) -> np.ndarray:
    """The affine (4, 4) of the first three axes to mm in R, A, S; a missing one is S."""
    count = image.GetDimension()
    axes = min(count, 3)
    direction = np.reshape(image.GetDirection(), (count, count))[:axes, :axes]
    affine = np.eye(4)
    affine[:axes, :axes] = direction * np.array(image.GetSpacing())[:axes]
    affine[:axes, 3] = np.array(image.GetOrigin())[:axes]
    affine[:3] *= RAS[:, None]
    return affine


def _save(image: sitk.Image, layout: Layout, maps: np.ndarray, place: Path) -> None:
    import SimpleITK as sitk

    stored = layout.to_stored(maps)
    made: Any = sitk.GetImageFromArray(np.ascontiguousarray(stored.T), isVector=False)
    count, own = image.GetDimension(), stored.ndim
    direction = np.reshape(image.GetDirection(), (count, count))[:own, :own]
    made.SetSpacing(image.GetSpacing()[:own])
    made.SetOrigin(image.GetOrigin()[:own])
    made.SetDirection(direction.ravel().tolist())
    sitk.WriteImage(made, str(place), useCompression=True)
