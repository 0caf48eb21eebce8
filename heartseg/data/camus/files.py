"""Find the images and label maps of a CAMUS source in any layout, and describe its problems."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from heartseg.data.camus.names import (
    LAYOUT,
    PHASES,
    SUFFIXES,
    UNLABELLED_FOLDERS,
    image_suffix,
    is_other_format,
    parse_path,
    partner_of,
)
from heartseg.data.source import MAX_NAMES, files_below, shorten_list
from heartseg.datasets.camus import Camus
from heartseg.errors import InputError
from heartseg.text import nfc

FrameFiles = dict[tuple[str, str, str, bool], list[Path]]
"""Files by (patient, view, frames, is_mask), see `heartseg.data.camus.names.FileName`."""


def list_files(source: Path, problems: list[str]) -> list[Path]:
    """Return all files below the source (see `files_below`).

    Raises:
        InputError: The source is not a folder.
    """
    if not os.path.isdir(source):
        if os.path.exists(source):
            raise InputError(f"{source}: is a file, not a folder. Unpack it and name the folder.")
        raise InputError(f"{source}: does not exist. Name the folder of the CAMUS release.")
    return files_below(source, problems)


def group_by_frame(source: Path, files: Iterable[Path], notes: list[str]) -> FrameFiles:
    """Group the images and label maps among files, and note the files that are not used.

    Args:
        source: Folder of the source.
        files: Files below the source.
        notes: List to which notes are appended.
    """
    named = {path: name for path in files if (name := parse_path(path.relative_to(source)))}
    patients = {name.patient for name in named.values()}
    frames: FrameFiles = defaultdict(list)
    elsewhere, other = [], [path for path in files if image_suffix(path) and path not in named]
    for path, name in named.items():
        folder = nfc(path.parent.name)
        if folder != name.patient and folder in patients:
            elsewhere.append(path)
        else:
            frames[name.patient, name.view, name.frames, name.is_mask].append(path)
    for reason, paths in (
        (f"no {', '.join(SUFFIXES)} files", [path for path in files if is_other_format(path)]),
        ("not named PATIENT_VIEW_PHASE", other),
        ("in the folder of another patient", elsewhere),
    ):
        if paths:
            listed = shorten_list([str(path.relative_to(source)) for path in paths])
            notes.append(f"files not used, because they are {reason}: {listed}")
    return frames


def find_duplicates(paths: Sequence[Path]) -> list[str]:
    """Return a problem if there are several files of a frame."""
    if len(paths) < 2:
        return []
    others = ", ".join(str(path) for path in paths[1:])
    return [f"{paths[0]}: exists more than once, also as {others}. Keep one of them."]


def find_unpaired(images: Sequence[Path], masks: Sequence[Path]) -> list[str]:
    """Return a problem if an image has no mask, or a mask has no image."""
    if bool(images) == bool(masks):
        return []
    present = [*images, *masks][0]
    missing = partner_of(present)
    reason = "is a folder" if missing.is_dir() else "is missing"
    kind = "image" if images else "mask"
    return [f"{missing}: {reason}, but its {kind} {present.name} exists. Add the file."]


# --- messages and notes -------------------------------------------------------------------


def explain_no_frames(source: Path, files: Sequence[Path]) -> str:
    """Return the message for a source without CAMUS frames: what was found and what is expected."""
    images = [path for path in files if image_suffix(path)]
    suffixes = Counter("".join(path.suffixes[-2:]).lower() or "without suffix" for path in files)
    found = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(MAX_NAMES))
    first = next(iter(images or files), None)
    example = f" The first unexpected name is {first.relative_to(source)}." if first else ""
    return (
        f"{source}: contains no CAMUS frames. Found: {found or 'no files'}. Expected: {LAYOUT}."
        f"{example} Name the folder of the release, or rename the files."
    )


def explain_no_masks(source: Path, frames: FrameFiles) -> str:
    """Return the message for a source without reference masks."""
    count = sum(len(paths) for (_, _, what, _), paths in frames.items() if what in PHASES)
    return (
        f"{source}: contains {count} images, but no reference masks. Expected: {LAYOUT}. Add the "
        "masks, or segment the images with `heartseg predict`."
    )


def notes_on_testing(source: Path, frames: FrameFiles, unlabelled: set[str]) -> list[str]:
    """Return notes on patients without masks, and on patients with masks in a test folder.

    Args:
        source: Folder of the source.
        frames: Images and label maps of the source.
        unlabelled: Patients without masks.
    """
    notes = []
    if unlabelled:
        notes.append(
            f"{shorten_list(sorted(unlabelled))}: no reference masks, so not used for training and "
            "evaluation"
        )
    folders: dict[str, set[str]] = defaultdict(set)
    for (patient, *_), paths in frames.items():
        for folder in paths[0].relative_to(source).parts[:-1]:
            if folder.lower() in UNLABELLED_FOLDERS and patient not in unlabelled:
                folders[folder].add(patient)
    notes += [
        f"{folder}/: has reference masks of {shorten_list(sorted(patients))}; these patients are "
        "split like all others, not reserved for testing"
        for folder, patients in folders.items()
    ]
    return notes


def notes_on_labels(path: Path) -> list[str]:
    """Return a note if the labels in nnU-Net's dataset.json differ from those of heartseg.

    Args:
        path: Path of dataset.json.
    """
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
    return [f"{path.name}: has the labels {theirs}, but they are read as {ours}"]
