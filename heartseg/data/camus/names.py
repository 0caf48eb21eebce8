"""File names of CAMUS frames in the releases and in nnU-Net's layout."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from heartseg.datasets.camus import PHASES, VIEWS
from heartseg.text import nfc

HALF_SEQUENCE = "half_sequence"
SUFFIXES = (".nii.gz", ".nii", ".mhd", ".mha")
"""Suffixes of images and label maps, in any case."""
PIXEL_SUFFIXES = (".raw", ".zraw")
"""Suffixes of the files that contain the pixels of .mhd files."""
NNUNET_FOLDERS = {"labelstr": "imagesTr", "labelsts": "imagesTs"}
"""Folders of label maps in nnU-Net's layout, and the folders of their images."""
LABEL_FOLDERS = (*NNUNET_FOLDERS, "labels", "masks", "mask")
"""Folders of label maps, whose names need not end in _gt."""
UNLABELLED_FOLDERS = {"testing", "imagests"}
"""Folders with the test patients of the 2019 challenge and of nnU-Net's layout."""
LAYOUT = (
    "PATIENT_VIEW_PHASE and PATIENT_VIEW_PHASE_gt (views 2CH and 4CH, phases ED and ES) with the "
    f"suffix {', '.join(SUFFIXES)}, in any subfolder; label maps without _gt in a folder labels/ "
    "or masks/; or nnU-Net's imagesTr/, with names ending in _0000, and labelsTr/"
)
_STEM = re.compile(
    rf"(?P<patient>.+?)[_-](?P<view>{'|'.join(VIEWS)})[_-](?P<frames>ED|ES|half[_-]sequence)"
    r"(?P<mask>[_-]gt)?(?P<channel>_0000)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class FrameName:
    """Parts of the name of an end-diastolic or end-systolic frame.

    Attributes:
        patient: Patient as written, in composed letters (see `normal`).
        view: "2CH" or "4CH".
        phase: "ED" or "ES".
    """

    patient: str
    view: str
    phase: str


@dataclass(frozen=True)
class FileName:
    """Parts of the name of a CAMUS file.

    Attributes:
        patient: Patient as written, in composed letters (see `normal`).
        view: "2CH" or "4CH".
        frames: "ED", "ES" or "half_sequence".
        is_mask: Whether the file contains label maps.
    """

    patient: str
    view: str
    frames: str
    is_mask: bool


def image_suffix(path: Path) -> str:
    """Return the suffix of a file as written if it is one of `SUFFIXES`, else ""."""
    suffix = next((end for end in SUFFIXES if path.name.lower().endswith(end)), "")
    return path.name[len(path.name) - len(suffix) :]


def parse_path(path: Path) -> FileName | None:
    """Parse the path of a file, or return None if it is not that of a CAMUS image or label map.

    Args:
        path: Path of the file, relative to the source.
    """
    suffix = image_suffix(path)
    match = _STEM.fullmatch(nfc(path.name.removesuffix(suffix))) if suffix else None
    if match is None:
        return None
    frames = match["frames"].upper()
    return FileName(
        patient=match["patient"],
        view=match["view"].upper(),
        frames=frames if frames in PHASES else HALF_SEQUENCE,
        is_mask=bool(match["mask"])
        or any(folder.lower() in LABEL_FOLDERS for folder in path.parts[:-1]),
    )


def is_other_format(path: Path) -> bool:
    """Return whether a file has the name of an image or label map, but an unsupported suffix."""
    is_pixels = path.suffix.lower() in PIXEL_SUFFIXES
    return not (is_pixels or image_suffix(path)) and bool(_STEM.match(nfc(path.name)))


def parse_frame(stem: str) -> FrameName | None:
    """Parse PATIENT_VIEW_PHASE, in any case, also with dashes or nnU-Net's suffix _0000.

    Args:
        stem: Name of the file without its suffix.

    Returns:
        None if the name is not that of an end-diastolic or end-systolic image.
    """
    match = _STEM.fullmatch(nfc(stem))
    if match is None or match["mask"] or match["frames"].upper() not in PHASES:
        return None
    return FrameName(match["patient"], match["view"].upper(), match["frames"].upper())


def partner_of(path: Path) -> Path:
    """Return the path that the label map of an image should have, or the image of a label map."""
    suffix, folder = image_suffix(path), path.parent
    stem = path.name.removesuffix(suffix)
    if image_folder := NNUNET_FOLDERS.get(folder.name.lower()):
        return folder.with_name(image_folder) / f"{stem}_0000{suffix}"
    if folder.name.lower().startswith("images") and stem.endswith("_0000"):
        labels = f"labels{folder.name[len('images') :]}"
        return folder.with_name(labels) / f"{stem.removesuffix('_0000')}{suffix}"
    if stem[-3:].lower() in ("_gt", "-gt"):
        return folder / f"{stem[:-3]}{suffix}"
    return folder / f"{stem}_gt{suffix}"
