"""PNG, JPEG and TIFF images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from heartseg.data.formats.pixels import Images, bit_depth, check_size
from heartseg.data.geometry import Geometry
from heartseg.errors import InputError

ORIENTATION = 0x0112
"""EXIF tag of the orientation, 1 for an upright image."""
MIN_HIGH_BYTE = 64
"""Smallest greatest value of the high bytes if all 16 bits are in use (see `to_uint8`)."""


def read_picture(path: Path, kind: str) -> Images:
    """Read a file. The pages of a TIFF file are frames.

    An image is read, and its label map saved, as viewers show it according to its EXIF orientation.

    Args:
        path: Path of the file.
        kind: "PNG", "JPEG" or "TIFF".

    Raises:
        InputError: The file is not a supported image. The message has the form "reason. Remedy".
        Exception: The file is damaged. Pillow raises errors of many classes.
    """
    from PIL import Image

    frames = []
    notes: tuple[str, ...] = ()
    with Image.open(path, formats=[kind]) as image:
        count = getattr(image, "n_frames", 1)
        if kind == "PNG" and count > 1:
            raise InputError(f"is an animated PNG of {count} frames. Export it as TIFF, AVI or MP4")
        if kind == "JPEG":
            count = 1  # further images are previews added by a camera
        for index in range(count):
            image.seek(index)
            check_size(image.height, image.width, count)
            frames.append(_gray(image))
        if kind != "TIFF" and image.getexif().get(ORIENTATION, 1) != 1:  # Pillow turns TIFF itself
            notes = ("is rotated upright according to its EXIF orientation, as is its label map",)
    pixels = np.stack(frames)
    if pixels.dtype == np.uint16:
        used = bit_depth(pixels)
        notes += (f"has 16 bits, of which {used} are in use; they are scaled to 8",)

    def save(maps: np.ndarray, target: Path) -> None:
        pages = [Image.fromarray(_to_bytes(one)) for one in maps]
        if count > 1:
            pages[0].save(target, "TIFF", save_all=True, append_images=pages[1:])
        else:
            pages[0].save(target, "PNG")

    geometry = Geometry(scale_problem=f"is a {kind} file, which has no scale in mm")
    return Images(pixels, geometry, save, ".png" if count == 1 else ".tif", notes)


def _gray(image) -> np.ndarray:
    from PIL import ImageOps

    deep = image.mode.startswith(("I", "F"))  # more than 8 bits, which mode "L" would lose
    cut = not deep and ";16" in str(image.tile)  # Pillow keeps only the high byte of 16-bit colours
    image = ImageOps.exif_transpose(image)
    pixels = np.array(image if deep else image.convert("L"))
    if cut and 0 < pixels.max() < MIN_HIGH_BYTE:
        raise InputError(
            "has 16 bits per colour channel, of which the upper ones are unused. Export it in "
            "gray, or with 8 bits"
        )
    if pixels.dtype.kind == "i" and pixels.min() >= 0 and pixels.max() < 2**16:
        return pixels.astype(np.uint16)  # Pillow reads some 16-bit files as 32-bit values
    return pixels


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return values if values.dtype == np.uint8 else np.rint(255 * values).astype(np.uint8)
