"""Read images of M-mode strips and windows, and the masks drawn on them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from heartseg.data.images import is_hidden, read_images, read_values
from heartseg.data.source import shorten_list
from heartseg.errors import InputError, one_line, unreadable
from heartseg.text import nfc

PICTURE_SUFFIX = re.compile(r"\.(png|tiff?|jpe?g)$", re.IGNORECASE)
FORMATS = "PNG, TIFF or JPEG"


def without_suffix(name: str) -> str:
    """Return the name of an image in composed letters, without its suffix if it has one."""
    return nfc(PICTURE_SUFFIX.sub("", name))


def recording_name(text: str) -> str:
    """Return the name of a recording from the name of its file, with or without suffix."""
    name = re.sub(r"\.(dcm|dicom)$", "", without_suffix(text), flags=re.IGNORECASE)
    return re.sub(r"_img$", "", name, flags=re.IGNORECASE)


def list_files(folder: Path) -> list[Path]:
    """Return the files of a folder, sorted, without hidden ones such as "._NAME" of macOS.

    Raises:
        InputError: The folder cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if not is_hidden(path))
    except OSError as error:
        raise unreadable(folder, error) from None


def find_pictures(folder: Path, notes: list[str]) -> dict[str, list[Path]]:
    """Find the images of a folder, by name without suffix.

    Args:
        folder: The folder.
        notes: List to which a note on other files is appended.

    Returns:
        Paths by name. There are several paths for a name if a.png and a.tif exist, for example.
    """
    found: dict[str, list[Path]] = {}
    other = []
    for path in list_files(folder):
        if PICTURE_SUFFIX.search(path.name):
            found.setdefault(without_suffix(path.name), []).append(path)
        else:
            other.append(path.name)
    if other:
        notes.append(
            f"{folder.name}: files not used, because they are not {FORMATS}: {shorten_list(other)}"
        )
    return found


def read_picture(path: Path) -> tuple[np.ndarray, list[str]]:
    """Read a strip or window.

    Returns:
        (image uint8 (H, W), notes). The notes are clauses about the file ("has 16 bits, ...").

    Raises:
        InputError: The file cannot be read. The message has the form "path: reason. Remedy."
    """
    images = read_images(path)
    if len(images.frames) > 1:
        raise InputError(f"{path}: contains {len(images.frames)} images. Save one image per file.")
    return images.frames[0], list(images.notes)


def read_mask(path: Path) -> tuple[np.ndarray, list[str]]:
    """Read a drawn mask. The pixels above half of its maximum are the LV.

    Returns:
        (mask bool (H, W), notes). The notes are clauses about the file.

    Raises:
        InputError: The file cannot be read, or the mask may be in its alpha channel. The message
            has the form "path: reason. Remedy."
    """
    images = read_values(path)
    if len(images.frames) > 1:
        raise InputError(f"{path}: contains {len(images.frames)} masks. Save one mask per file.")
    if _is_transparent(path):
        raise InputError(
            f"{path}: is transparent, so its mask may be in the alpha channel. "
            "Export it as 8-bit gray without transparency."
        )
    values = images.frames[0]
    if not np.isfinite(values).all():
        raise InputError(f"{path}: contains NaN or infinite values. Export it as 8-bit gray.")
    notes = []
    half = values.max() / 2
    if (levels := len(np.unique(values))) > 2:
        notes.append(
            f"has {levels} gray levels; those above {half:g}, half of the maximum, are read as LV"
        )
    return values > half, notes


def _is_transparent(path: Path) -> bool:
    """Return whether an image has transparent pixels."""
    from PIL import Image, UnidentifiedImageError

    try:
        # The formats are restricted, because Pillow runs other programs for some of them.
        with Image.open(path, formats=["PNG", "TIFF", "JPEG"]) as picture:
            if not picture.has_transparency_data:
                return False
            opacity = np.asarray(picture.convert("RGBA").getchannel("A"))
            return int(opacity.min()) < 255
    except UnidentifiedImageError:  # another format
        return False
    except Exception as error:  # Pillow raises errors of many classes if a file is damaged
        raise InputError(f"{path}: cannot be read ({one_line(error)}). Export it again.") from None
