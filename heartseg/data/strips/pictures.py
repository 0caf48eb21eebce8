"""Pictures of M-mode strips and windows, and the masks drawn on them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from heartseg.data.images import is_hidden, read_images, read_values
from heartseg.errors import InputError, one_line, unreadable
from heartseg.text import nfc

ENDING = re.compile(r"\.(png|tiff?|jpe?g)$", re.IGNORECASE)
KINDS = "PNG, TIFF or JPEG"
MOST_NAMES = 5
"""Names that a note lists; the others are counted."""


def without_ending(name: str) -> str:
    """A picture's name without its ending, which may be in any case or be absent."""
    return nfc(ENDING.sub("", name))


def recording_name(text: str) -> str:
    """What a recording is called, from its file's name, or from that name without its ending."""
    name = re.sub(r"\.(dcm|dicom)$", "", without_ending(text), flags=re.IGNORECASE)
    return re.sub(r"_img$", "", name, flags=re.IGNORECASE)


def list_files(folder: Path) -> list[Path]:
    """The files of a folder, sorted, without hidden ones such as macOS's "._NAME".

    Raises:
        InputError: the folder cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if not is_hidden(path))
    except OSError as error:
        raise unreadable(folder, error) from None


def find_pictures(folder: Path, notes: list[str]) -> dict[str, list[Path]]:
    """Pictures by name without ending; more than one where a.png and a.PNG are there."""
    found: dict[str, list[Path]] = {}
    other = []
    for path in list_files(folder):
        if ENDING.search(path.name):
            found.setdefault(without_ending(path.name), []).append(path)
        else:
            other.append(path.name)
    if other:
        notes.append(f"{folder.name}: not used, for they are not {KINDS}: {some(other)}")
    return found


def some(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def read_picture(path: Path) -> tuple[np.ndarray, list[str]]:
    """Read a strip or window as uint8 (H, W), and clauses on what is odd ("has 16 bits, ...").

    Raises:
        InputError: "path: reason. Remedy."
    """
    images = read_images(path)
    if len(images.frames) > 1:
        raise InputError(f"{path}: holds {len(images.frames)} pictures. Give one in a file.")
    return images.frames[0], list(images.notes)


def read_mask(path: Path) -> tuple[np.ndarray, list[str]]:
    """Read a drawn mask as bool (H, W), and clauses on what is odd.

    The pixels above half of its maximum are the LV, whatever the picture's depth.

    Raises:
        InputError: "path: reason. Remedy."; also if what is drawn may be in the alpha channel.
    """
    images = read_values(path)
    if len(images.frames) > 1:
        raise InputError(f"{path}: holds {len(images.frames)} pictures. Give one in a file.")
    if _is_transparent(path):
        raise InputError(
            f"{path}: is transparent, so its mask may be in the alpha channel. "
            "Export it as 8-bit gray without transparency."
        )
    values = images.frames[0]
    if not np.isfinite(values).all():
        raise InputError(f"{path}: holds NaN or infinite values. Export it as 8-bit gray.")
    notes = []
    half = values.max() / 2
    if (levels := len(np.unique(values))) > 2:
        notes.append(
            f"has {levels} gray levels; those above {half:g}, half of the maximum, count as LV"
        )
    return values > half, notes


def _is_transparent(path: Path) -> bool:
    """Whether a picture is transparent anywhere."""
    from PIL import Image, UnidentifiedImageError

    try:
        # Not all formats: some of Pillow's start other programs.
        with Image.open(path, formats=["PNG", "TIFF", "JPEG"]) as picture:
            if not picture.has_transparency_data:
                return False
            opacity = np.asarray(picture.convert("RGBA").getchannel("A"))
            return int(opacity.min()) < 255
    except UnidentifiedImageError:  # another format
        return False
    except Exception as error:  # Pillow raises many kinds on a broken file
        raise InputError(f"{path}: cannot be read ({one_line(error)}). Export it again.") from None
