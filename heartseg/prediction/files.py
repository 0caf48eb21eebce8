"""Which files to segment, and where their results go."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from heartseg.data.camus.names import LABEL_FOLDERS, PIXEL_SUFFIXES, parse_frame
from heartseg.data.images import FORMATS, SUFFIXES, is_hidden, is_image, stem_of
from heartseg.data.source import files_below, shorten_list

NOT_IMAGES = ("_gt", "_mask", "_seg", "_uncertainty", "_overlay", "_curves")
COMPANIONS = {".cfg", ".txt", ".csv", ".json", *PIXEL_SUFFIXES}
"""Endings of tables and pixels that stand beside images."""
DIRECTORY = "DICOMDIR"
"""Name of the table of contents of DICOM media (PS3.10, section 8)."""
FILES_AT_ONCE = 16


@dataclass(frozen=True)
class Job:
    """A file to segment, and the path of its results without their endings."""

    file: Path
    place: Path


def find_jobs(
    inputs: Sequence[str], out: Path, notes: list[tuple[str, str]] | None = None
) -> tuple[list[Job], list[str]]:
    """The files to segment: those named, matched by a pattern, or found in a folder.

    Results keep the inputs' paths below the folder that all of them share, so that equal names
    in different folders stay apart; equal names with different suffixes keep the suffix. Ground
    truth and results (`NOT_IMAGES`, `LABEL_FOLDERS`) and hidden files are passed over in folders
    and patterns.

    Args:
        inputs: files, folders, or patterns of the shell (** for any folders).
        out: folder for the results; nothing in it is an input.
        notes: gets for each folder which kinds of files in it are no images.

    Returns:
        The jobs in the order of their places, and a line for each input that is missing or of no
        use.
    """
    folders: list[Path] = []
    files: list[Path] = []
    problems: list[str] = []
    for given in inputs:
        path = Path(os.path.abspath(given))
        if path.is_dir():
            below = files_below(path, problems)
            inside = [found for found in below if _is_input(found, out, path)]
            if not inside:
                problems.append(f"{path}: no {', '.join(SUFFIXES)} file in this folder")
            others = Counter(found.suffix for found in below if _is_other(found, out))
            if others and notes is not None:
                counts = [f"{count} {end or 'without ending'}" for end, count in others.items()]
                notes.append((str(path), f"has files that are no images: {shorten_list(counts)}"))
            folders.append(path)
        elif path.exists():
            inside = [path] if is_image(path) else []
            if not inside:
                problems.append(f"{path}: is not {FORMATS}, by its name; convert it")
            folders.append(path.parent)
        else:
            matched = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
            inside = [found for found in matched if _is_input(found, out)]
            if not inside:
                what = "matches no image" if glob.has_magic(given) else "does not exist"
                problems.append(f"{path}: {what}")
            folders += [found.parent for found in inside]
        files += inside
    files = list(dict.fromkeys(files))
    base = Path(os.path.commonpath(folders)) if folders else Path()
    places = {file: file.relative_to(base).with_name(stem_of(file)) for file in files}
    taken = Counter(places.values())
    for file, place in places.items():
        if taken[place] > 1:
            places[file] = place.with_name(file.name)
    jobs = [Job(file, out / place) for file, place in places.items()]
    return sorted(jobs, key=lambda job: job.place), problems


def _is_input(path: Path, out: Path, base: Path | None = None) -> bool:
    """Whether a file that was found is an image to segment.

    Args:
        path: of the file.
        out: folder for the results.
        base: the folder that is searched; what its own path is called does not matter.
    """
    if path.is_relative_to(os.path.abspath(out)) or path.name.upper() == DIRECTORY:
        return False
    if path.exists() and not path.is_file():  # what is missing at the end of a link is told of
        return False
    above = path.relative_to(base).parents if base else [path.parent]
    if any(is_hidden(one) or one.name.lower() in LABEL_FOLDERS for one in above):
        return False
    return not stem_of(path).lower().endswith(NOT_IMAGES) and is_image(path)


def _is_other(path: Path, out: Path) -> bool:
    """Whether a file is neither an image nor one of the tables that stand beside images."""
    known = path.suffix.lower() in COMPANIONS or path.name.upper() == DIRECTORY
    return not (known or is_image(path) or path.is_relative_to(os.path.abspath(out)))


def patient_of(job: Job) -> Path:
    """The patient of a CAMUS frame, with the folder; of any other file the file itself."""
    frame = parse_frame(job.place.name)
    return job.place.with_name(frame.patient) if frame else job.place


def in_chunks(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Pieces of about FILES_AT_ONCE jobs; the frames of one patient are in one piece."""
    chunk: list[Job] = []
    for _, own in groupby(sorted(jobs, key=patient_of), key=patient_of):
        chunk += own
        if len(chunk) >= FILES_AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
