"""The files to segment, and the paths of their results."""

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
"""Endings of tables and pixel data that belong to images."""
DIRECTORY = "DICOMDIR"
"""Name of the table of contents of DICOM media (PS3.10, section 8)."""
CHUNK_SIZE = 16


@dataclass(frozen=True)
class Job:
    """A file to segment.

    Attributes:
        file: Path of the file.
        output: Path of its results without their endings.
    """

    file: Path
    output: Path


def find_jobs(
    inputs: Sequence[str], out: Path, notes: list[tuple[str, str]] | None = None
) -> tuple[list[Job], list[str]]:
    """Find the files to segment.

    The results keep the paths of the inputs relative to their common folder, so that files of the
    same name in different folders do not collide. If files differ only in their suffix, the names
    of their results contain it. In folders and patterns, ground truth and results (`NOT_IMAGES`,
    `LABEL_FOLDERS`) and hidden files are skipped.

    Args:
        inputs: Files, folders, or shell patterns (** matches any folders).
        out: Folder for the results. Files in it are never inputs.
        notes: List to which (folder, note) is appended for each folder with files of other kinds.

    Returns:
        The jobs, sorted by output, and a line for each input that is missing or not usable.
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
                note = f"contains files that are not images: {shorten_list(counts)}"
                notes.append((str(path), note))
            folders.append(path)
        elif path.exists():
            inside = [path] if is_image(path) else []
            if not inside:
                problems.append(f"{path}: is not {FORMATS} according to its name; convert it")
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
    outputs = {file: file.relative_to(base).with_name(stem_of(file)) for file in files}
    count = Counter(outputs.values())
    for file, output in outputs.items():
        if count[output] > 1:
            outputs[file] = output.with_name(file.name)
    jobs = [Job(file, out / output) for file, output in outputs.items()]
    return sorted(jobs, key=lambda job: job.output), problems


def _is_input(path: Path, out: Path, base: Path | None = None) -> bool:
    """Return whether a file in a folder or pattern is an image to segment.

    Args:
        path: Path of the file.
        out: Folder for the results.
        base: Folder that is searched. Only names below it decide whether the file is skipped.
    """
    if path.is_relative_to(os.path.abspath(out)) or path.name.upper() == DIRECTORY:
        return False
    if path.exists() and not path.is_file():  # broken links are inputs, so that they are reported
        return False
    above = path.relative_to(base).parents if base else [path.parent]
    if any(is_hidden(folder) or folder.name.lower() in LABEL_FOLDERS for folder in above):
        return False
    return not stem_of(path).lower().endswith(NOT_IMAGES) and is_image(path)


def _is_other(path: Path, out: Path) -> bool:
    """Return whether a file is neither an image nor one of its `COMPANIONS`."""
    known = path.suffix.lower() in COMPANIONS or path.name.upper() == DIRECTORY
    return not (known or is_image(path) or path.is_relative_to(os.path.abspath(out)))


def patient_of(job: Job) -> Path:
    """Return folder and patient of a CAMUS frame, or the output of any other file."""
    frame = parse_frame(job.output.name)
    return job.output.with_name(frame.patient) if frame else job.output


def in_chunks(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Split jobs into chunks of about CHUNK_SIZE. All frames of a patient are in one chunk."""
    chunk: list[Job] = []
    for _, own in groupby(sorted(jobs, key=patient_of), key=patient_of):
        chunk += own
        if len(chunk) >= CHUNK_SIZE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
