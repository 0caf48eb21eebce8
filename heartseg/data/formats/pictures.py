"""PNG, JPEG and TIFF files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from heartseg.data.formats.pixels import Images, check_size, depth_of
from heartseg.data.geometry import Geometry
from heartseg.errors import InputError

ORIENTATION = 0x0112
"""Tag of EXIF: how a picture must be turned to stand upright, 1 if it does."""
LEAST_HIGH_BYTE = 64
"""From here on the greatest of 16-bit values has all of its 16 bits in use, see `to_uint8`."""


def read_picture(path: Path, kind: str) -> Images:
    """Read a file; errors of Pillow where it is broken. The pages of a TIFF file are frames.

    A picture that its EXIF data turn is read, and its label map saved, as viewers show it.

    Args:
        path: of the file.
        kind: "PNG", "JPEG" or "TIFF".

    Raises:
        InputError: "reason. Remedy."
    """
    from PIL import Image

    frames = []
    notes: tuple[str, ...] = ()
    with Image.open(path, formats=[kind]) as image:
        count = getattr(image, "n_frames", 1)
        if kind == "PNG" and count > 1:
            raise InputError(f"is an animation of {count} frames. Export it as TIFF, AVI or MP4")
        if kind == "JPEG":
            count = 1  # what a camera adds is a preview
        for index in range(count):
            image.seek(index)
            check_size(image.height, image.width, count)
            frames.append(_gray(image))
        if kind != "TIFF" and image.getexif().get(ORIENTATION, 1) != 1:  # Pillow turns TIFF itself
            notes = ("is turned upright, as its EXIF orientation says; so is its label map",)
    pixels = np.stack(frames)
    if pixels.dtype == np.uint16:
        used = depth_of(pixels)
        notes += (f"has 16 bits, of which {used} are in use; they are scaled to 8",)

    def save(maps: np.ndarray, place: Path) -> None:
        pages = [Image.fromarray(_to_bytes(one)) for one in maps]
        if count > 1:
            pages[0].save(place, "TIFF", save_all=True, append_images=pages[1:])
        else:
            pages[0].save(place, "PNG")

    geometry = Geometry(doubt=f"is a {kind} file, which has no scale of tissue")
    return Images(pixels, geometry, save, ".png" if count == 1 else ".tif", notes)


def _gray(image) -> np.ndarray:
    from PIL import ImageOps

    deep = image.mode.startswith(("I", "F"))  # more than 8 bits, which "L" would cut off
    cut = not deep and ";16" in str(image.tile)  # Pillow keeps the high byte of 16-bit colours
    image = ImageOps.exif_transpose(image)
    pixels = np.array(image if deep else image.convert("L"))
    if cut and 0 < pixels.max() < LEAST_HIGH_BYTE:
        raise InputError(
            "has 16 bits per colour channel, of which the upper ones are not in use. Export it in "
            "gray, or with 8 bits"
        )
    if pixels.dtype.kind == "i" and pixels.min() >= 0 and pixels.max() < 2**16:
        return pixels.astype(np.uint16)  # Pillow gives 16 bits of some files as 32
    return pixels


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return values if values.dtype == np.uint8 else np.rint(255 * values).astype(np.uint8)
