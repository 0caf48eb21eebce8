"""PNG, JPEG and TIFF files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from heartseg.data.geometry import Geometry
from heartseg.data.pixels import Images, check_size, depth_of


def read_picture(path: Path, kind: str) -> Images:
    """Read a file; errors of Pillow where it is broken. The pages of a TIFF file are frames.

    Args:
        path: of the file.
        kind: "PNG", "JPEG" or "TIFF".

    Raises:
        InputError: "reason. Remedy."
    """
    from PIL import Image

    frames = []
    with Image.open(path, formats=[kind]) as image:
        count = getattr(image, "n_frames", 1) if kind == "TIFF" else 1
        for index in range(count):
            image.seek(index)
            check_size(image.height, image.width, count)
            frames.append(_gray(image))
    pixels = np.stack(frames)
    notes: tuple[str, ...] = ()
    if pixels.dtype.itemsize > 1:
        used = depth_of(pixels)
        notes = (f"has 16 bits, of which {used} are in use; they are scaled to 8",)

    def save(maps: np.ndarray, place: Path) -> None:
        pages = [Image.fromarray(_to_bytes(one)) for one in maps]
        if count > 1:
            pages[0].save(place, "TIFF", save_all=True, append_images=pages[1:])
        else:
            pages[0].save(place, "PNG")

    geometry = Geometry(doubt=f"is a {kind} file, which has no scale of tissue")
    return Images(pixels, geometry, save, ".png" if count == 1 else ".tif", notes)


def _gray(image) -> np.ndarray:
    deep = image.mode.startswith(("I", "F"))  # more than 8 bits, which "L" would cut off
    pixels = np.array(image if deep else image.convert("L"))
    if pixels.dtype.kind == "i" and pixels.min() >= 0 and pixels.max() < 2**16:
        return pixels.astype(np.uint16)  # Pillow gives 16 bits of some files as 32
    return pixels


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return values if values.dtype == np.uint8 else np.rint(255 * values).astype(np.uint8)
