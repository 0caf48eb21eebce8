"""Which files a CAMUS source has, whatever its layout, and what is to be said about them."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from heartseg.data.camus.names import (
    ENDINGS,
    LAYOUT,
    PHASES,
    UNLABELLED_FOLDERS,
    ending_of,
    is_of_another_kind,
    parse,
    partner_of,
)
from heartseg.data.source import MOST_NAMES, enumerated, files_below
from heartseg.datasets.camus import Camus
from heartseg.errors import InputError
from heartseg.text import nfc

Frames = dict[tuple[str, str, str, bool], list[Path]]
"""Files by patient, view, frames ("ED", "ES" or "half_sequence"), and whether they are masks."""


def list_files(source: Path, problems: list[str]) -> list[Path]:
    """All files below the source, see `files_below`."""
    if not os.path.isdir(source):
        if os.path.exists(source):
            raise InputError(f"{source} is a file, not a folder. Unpack it and name the folder.")
        raise InputError(f"{source} does not exist. Name the folder of the CAMUS release.")
    return files_below(source, problems)


def by_frame(source: Path, files: Iterable[Path], notes: list[str]) -> Frames:
    """The images and label maps among files; notes on those that are not used."""
    named = {path: name for path in files if (name := parse(path.relative_to(source)))}
    patients = {name.patient for name in named.values()}
    frames: Frames = defaultdict(list)
    elsewhere, other = [], [path for path in files if ending_of(path) and path not in named]
    for path, name in named.items():
        folder = nfc(path.parent.name)
        if folder != name.patient and folder in patients:
            elsewhere.append(path)
        else:
            frames[name.patient, name.view, name.frames, name.is_mask].append(path)
    for reason, paths in (
        (f"not {', '.join(ENDINGS)}", [path for path in files if is_of_another_kind(path)]),
        ("not named PATIENT_VIEW_PHASE", other),
        ("in the folder of another patient", elsewhere),
    ):
        if paths:
            shown = enumerated([str(path.relative_to(source)) for path in paths])
            notes.append(f"not used, because {reason}: {shown}")
    return frames


def twice(paths: Sequence[Path]) -> list[str]:
    """The problem of a frame of which there are several files."""
    if len(paths) < 2:
        return []
    others = ", ".join(str(path) for path in paths[1:])
    return [f"{paths[0]}: is there more than once, also as {others}. Keep one."]


def lone(images: Sequence[Path], masks: Sequence[Path]) -> list[str]:
    """The problem of an image without its mask, or of a mask without its image."""
    if bool(images) == bool(masks):
        return []
    there = [*images, *masks][0]
    lacking = partner_of(there)
    reason = "is a folder" if lacking.is_dir() else "is missing"
    kind = "image" if images else "mask"
    return [f"{lacking}: {reason}, while its {kind} {there.name} is there. Add it."]


# --- messages and notes -------------------------------------------------------------------


def not_understood(source: Path, files: Sequence[Path]) -> str:
    """Why no file is a CAMUS frame: what was found, what was looked for, what did not fit."""
    images = [path for path in files if ending_of(path)]
    kinds = Counter("".join(path.suffixes[-2:]).lower() or "without ending" for path in files)
    found = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(MOST_NAMES))
    first = next(iter(images or files), None)
    odd = f" The first name that does not fit: {first.relative_to(source)}." if first else ""
    return (
        f"{source}: has no frame of CAMUS. Found: {found or 'no file'}. Looked for {LAYOUT}.{odd} "
        "Name the folder of the release, or rename the files."
    )


def without_masks(source: Path, frames: Frames) -> str:
    count = sum(len(paths) for (_, _, what, _), paths in frames.items() if what in PHASES)
    return (
        f"{source}: has {count} images and no reference mask. Looked for {LAYOUT}. Add the masks. "
        "Images without masks can only be segmented (heartseg predict)."
    )


def notes_on_testing(source: Path, frames: Frames, unlabelled: set[str]) -> list[str]:
    """Notes on patients without masks, and on those with masks in a folder for testing."""
    notes = []
    if unlabelled:
        notes.append(
            f"{enumerated(sorted(unlabelled))}: without reference masks, so left out of training "
            "and evaluation"
        )
    folders: dict[str, set[str]] = defaultdict(set)
    for (patient, *_), paths in frames.items():
        for folder in paths[0].relative_to(source).parts[:-1]:
            if folder.lower() in UNLABELLED_FOLDERS and patient not in unlabelled:
                folders[folder].add(patient)
    notes += [
        f"{folder}/: has reference masks of {enumerated(sorted(patients))}; they are split like "
        "all others, and not kept for testing"
        for folder, patients in folders.items()
    ]
    return notes


def notes_on_labels(path: Path) -> list[str]:
    """What nnU-Net's dataset.json calls the labels, if other than heartseg, which reads values."""
    try:
        labels = json.loads(path.read_text(encoding="utf-8-sig"))["labels"]
        named = {str(name).upper(): value for name, value in labels.items()}
    except (OSError, ValueError, KeyError, AttributeError):
        return []
    if named == {label.name: label.value for label in Camus}:
        return []
    theirs, ours = (
        ", ".join(f"{name} {value}" for name, value in one)
        for one in (labels.items(), ((label.name, label.value) for label in Camus))
    )
    return [f"{path.name}: names the labels {theirs}; they are read as {ours}"]
