"""File names of CAMUS frames, as the releases and nnU-Net write them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from heartseg.datasets.camus import PHASES, VIEWS
from heartseg.text import nfc

HALF_SEQUENCE = "half_sequence"
ENDINGS = (".nii.gz", ".nii", ".mhd", ".mha")
"""Of images and label maps, in any case. The pixels of a .mhd file are in a .raw or .zraw file."""
PIXELS = (".raw", ".zraw")
"""Endings of the files that hold the pixels of .mhd files."""
NNUNET_FOLDERS = {"labelstr": "imagesTr", "labelsts": "imagesTs"}
"""nnU-Net's folders of label maps, and of their images."""
LABEL_FOLDERS = (*NNUNET_FOLDERS, "labels", "masks", "mask")
"""Folders of label maps, which need not have _gt in their names."""
UNLABELLED_FOLDERS = {"testing", "imagests"}
"""Folders whose patients the 2019 challenge and nnU-Net keep for testing."""
LAYOUT = (
    "PATIENT_VIEW_PHASE and PATIENT_VIEW_PHASE_gt (views 2CH and 4CH, phases ED and ES) with an "
    f"ending of {', '.join(ENDINGS)}, in any folder below; or label maps without _gt in a folder "
    "labels/ or masks/; or nnU-Net's imagesTr/ with names ending in _0000 and labelsTr/"
)
_STEM = re.compile(
    rf"(?P<patient>.+?)[_-](?P<view>{'|'.join(VIEWS)})[_-](?P<frames>ED|ES|half[_-]sequence)"
    r"(?P<mask>[_-]gt)?(?P<channel>_0000)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class FrameName:
    """An end-diastolic or end-systolic frame of a view.

    Attributes:
        patient: as written, in composed letters (see `nfc`).
        view: "2CH" or "4CH".
        phase: "ED" or "ES".
    """

    patient: str
    view: str
    phase: str


@dataclass(frozen=True)
class Named:
    """What the name of a CAMUS file says.

    Attributes:
        patient: as written, in composed letters (see `nfc`).
        view: "2CH" or "4CH".
        frames: "ED", "ES" or "half_sequence".
        is_mask: whether the file holds label maps.
    """

    patient: str
    view: str
    frames: str
    is_mask: bool


def ending_of(path: Path) -> str:
    """The file's ending, as written, if it is one of `ENDINGS`, else ""."""
    wanted = next((end for end in ENDINGS if path.name.lower().endswith(end)), "")
    return path.name[len(path.name) - len(wanted) :]


def parse(path: Path) -> Named | None:
    """Read the name of a file; None if it is not that of a CAMUS image or label map.

    Args:
        path: of the file; folders above the source do not belong to it.
    """
    ending = ending_of(path)
    match = _STEM.fullmatch(nfc(path.name.removesuffix(ending))) if ending else None
    if match is None:
        return None
    frames = match["frames"].upper()
    return Named(
        patient=match["patient"],
        view=match["view"].upper(),
        frames=frames if frames in PHASES else HALF_SEQUENCE,
        is_mask=bool(match["mask"])
        or any(folder.lower() in LABEL_FOLDERS for folder in path.parts[:-1]),
    )


def is_of_another_kind(path: Path) -> bool:
    """Whether a file is named as an image or label map, and has an ending that is not read."""
    pixels = path.suffix.lower() in PIXELS
    return not (pixels or ending_of(path)) and bool(_STEM.match(nfc(path.name)))


def parse_frame(stem: str) -> FrameName | None:
    """Read PATIENT_VIEW_PHASE: in any case, with dashes, with nnU-Net's ending _0000.

    Args:
        stem: the file's name without its ending.
    """
    match = _STEM.fullmatch(nfc(stem))
    if match is None or match["mask"] or match["frames"].upper() not in PHASES:
        return None
    return FrameName(match["patient"], match["view"].upper(), match["frames"].upper())


def partner_of(path: Path) -> Path:
    """Where the label map of an image belongs, or the image of a label map."""
    ending, folder = ending_of(path), path.parent
    stem = path.name.removesuffix(ending)
    if image_folder := NNUNET_FOLDERS.get(folder.name.lower()):
        return folder.with_name(image_folder) / f"{stem}_0000{ending}"
    if folder.name.lower().startswith("images") and stem.endswith("_0000"):
        labels = f"labels{folder.name[len('images') :]}"
        return folder.with_name(labels) / f"{stem.removesuffix('_0000')}{ending}"
    if stem[-3:].lower() in ("_gt", "-gt"):
        return folder / f"{stem[:-3]}{ending}"
    return folder / f"{stem}_gt{ending}"
