"""Find the M-mode recordings of a folder and the files beside them.

A recording NAME.dcm, NAME.png or NAME_img.png can have traces in NAME_traces.csv (see
`heartseg.data.strips.traces`) or a mask in NAME_mask.png. The case of suffixes is ignored. If the
frames of a DICOM file form several strips, these are NAME_s1, NAME_s2 and so on, and their traces
NAME_s1_traces.csv and so on.

recordings.csv in the same folder is optional. Its column recording contains the name of a recording
or of its file. The other columns are animal, mm_per_row, s_per_column, the place of the strip
within the image (first_row, last_row, first_column, last_column, from 0, inclusive), and the known
values that `heartseg recording` compares with its measurements (lvidd_mm, lvids_mm,
heart_rate_bpm).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from heartseg.config.yaml_file import unknown_name
from heartseg.data.csv_table import read_table, rows_of
from heartseg.data.formats.dicom_header import is_dicom
from heartseg.data.source import shorten_list
from heartseg.data.strips.pictures import FORMATS, PICTURE_SUFFIX, list_files, recording_name
from heartseg.data.strips.quality import FILE as QUALITY
from heartseg.data.strips.quality import QualityLabels
from heartseg.errors import InputError
from heartseg.text import nfc

TABLE = "recordings.csv"
SPACINGS = ("mm_per_row", "s_per_column")
AXES = ("row", "column")
CROP_COLUMNS = tuple(f"{end}_{axis}" for axis in AXES for end in ("first", "last"))
REFERENCE_COLUMNS = ("lvidd_mm", "lvids_mm", "heart_rate_bpm")
NUMBERS = (*SPACINGS, *CROP_COLUMNS, *REFERENCE_COLUMNS)
ANNOTATION_FILE = re.compile(r"_(?P<kind>mask|traces)\.(png|tiff?|jpe?g|csv)$", re.IGNORECASE)
STRIP_SUFFIX = re.compile(r"_s[0-9]+$")
"""End of the name of a strip, if its recording has several strips."""


@dataclass(frozen=True)
class RecordingFolder:
    """A folder with recordings and the files beside them.

    Attributes:
        path: Path of the folder.
        files: Paths of the recordings, by name.
        annotations: Paths of traces and masks, by (name of the strip, "traces" or "mask").
        table, quality: Paths of recordings.csv and quality.csv; None if they do not exist.
        other: Names of all other files.
        read_strips: Names of the strips of each recording that has been read.
    """

    path: Path
    files: dict[str, list[Path]]
    annotations: dict[tuple[str, str], list[Path]]
    table: Path | None
    quality: Path | None
    other: list[str]
    read_strips: dict[str, list[str]] = field(default_factory=dict)

    @cached_property
    def rows(self) -> dict[str, dict[str, str]]:
        """Rows of recordings.csv by name of the recording, including those without recording.

        Raises:
            InputError: The table is invalid. The message has the form "path: reason. Remedy."
        """
        if self.table is None:
            return {}
        table = read_table(self.table, ["recording"], ["animal", *NUMBERS], numbers=NUMBERS)
        rows: dict[str, dict[str, str]] = {}
        for row in rows_of(table):
            name = recording_name(row["recording"])
            if name in rows:
                both = dict.fromkeys([rows[name]["recording"], row["recording"]])
                raise InputError(
                    f"{self.table}: has several rows for the recording {name} "
                    f"({', '.join(both)}). Keep one of them."
                )
            rows[name] = row
        return rows

    def row_of(self, recording: str) -> dict[str, str]:
        """Return the row of a recording, or {} if it has none.

        Raises:
            InputError: It has none, but another row has no recording, so its name may be misspelt.
        """
        if recording not in self.rows and (unmatched := self.unmatched_rows()):
            raise InputError(
                f"{self.table}: has no row for {recording}, but its row {unmatched[0]!r} matches "
                "no recording. Correct the name, or remove the row."
            )
        return self.rows.get(recording, {})

    def unmatched_rows(self) -> list[str]:
        """Return the names in recordings.csv that match no file of the folder."""
        return [row["recording"] for name, row in self.rows.items() if name not in self.files]

    def unmatched_row_problems(self) -> list[str]:
        """Return a problem for every row of recordings.csv that matches no recording."""
        return [
            f"{self.table}: {unknown_name('recording', name, sorted(self.files))} (correct the "
            "name, or remove the row)"
            for name in self.unmatched_rows()
        ]

    def has_strip(self, name: str) -> bool:
        """Return whether a strip was read, or may be in a recording that was not read."""
        whole = STRIP_SUFFIX.sub("", name)
        if any(name in strips for strips in self.read_strips.values()):
            return True
        return bool({name, whole} & (self.files.keys() - self.read_strips.keys()))

    def unmatched_files(self) -> list[str]:
        """Return a note on traces and masks without strip. Call it after reading recordings."""
        unmatched = [
            path.name
            for (name, _), paths in self.annotations.items()
            if not self.has_strip(name)
            for path in paths
        ]
        return _note_not_used(self.path, unmatched)


def _name_of(path: Path) -> str:
    # DICOM files can have any suffix. If they are named by a UID, its last number is not a suffix.
    known = recording_name(path.name)
    as_is = known == nfc(path.name) and not path.suffix[1:].isdigit()
    return nfc(path.stem) if as_is else known


def read_folder(path: Path) -> RecordingFolder:
    """List the recordings of a folder and the files beside them.

    Raises:
        InputError: The folder cannot be read.
    """
    files: dict[str, list[Path]] = {}
    annotations: dict[tuple[str, str], list[Path]] = {}
    tables: dict[str, Path] = {}
    other = []
    for file in list_files(path):
        if match := ANNOTATION_FILE.search(file.name):
            own = nfc(file.name[: match.start()])
            annotations.setdefault((own, match["kind"].lower()), []).append(file)
        elif file.name.lower() in (TABLE, QUALITY) and file.name.lower() not in tables:
            tables[file.name.lower()] = file
        elif _is_recording(file):
            files.setdefault(_name_of(file), []).append(file)
        else:
            other.append(file.name)
    return RecordingFolder(path, files, annotations, tables.get(TABLE), tables.get(QUALITY), other)


def _is_recording(path: Path) -> bool:
    if not path.is_file() or path.name.upper() == "DICOMDIR":
        return False
    return bool(PICTURE_SUFFIX.search(path.name)) or is_dicom(path)


@dataclass(frozen=True)
class Recording:
    """A recording that has not been opened yet, and its folder."""

    name: str
    path: Path
    folder: RecordingFolder


def find_recordings(inputs: Sequence[Path], notes: list[str]) -> list[Recording]:
    """Find the recordings among files and folders, sorted by name.

    Args:
        inputs: Paths of files and folders.
        notes: List to which the unused files of the folders are appended.

    Raises:
        InputError: An input does not exist or contains no recording, or two recordings have the
            same name.
    """
    folders: dict[Path, RecordingFolder] = {}
    found: dict[str, Recording] = {}
    for given in inputs:
        if not os.path.exists(given):
            raise InputError(f"{given}: does not exist. Name recordings, or folders with them.")
        whole = os.path.isdir(given)
        place = given if whole else given.parent
        if place not in folders:
            folders[place] = read_folder(place)
        folder = folders[place]
        if whole:
            if folder.other:
                notes.append(
                    f"{given}: not used, for they are no recordings: {shorten_list(folder.other)}"
                )
            paths = [path for files in folder.files.values() for path in files]
        else:
            paths = [given] if _is_recording(given) else []
        if not paths:
            raise InputError(
                f"{given}: contains no recordings (DICOM, {FORMATS}). Name another folder."
                if whole
                else f"{given}: is not a recording (DICOM, {FORMATS}). Export it in one of these "
                "formats."
            )
        for path in paths:
            name = _name_of(path)
            one = found.setdefault(name, Recording(name, path, folder))
            if not os.path.samefile(one.path, path):
                raise InputError(f"{path}: has the same name as {one.path}. Rename one of them.")
    return sorted(found.values(), key=lambda one: one.name)


def unmatched_labels(
    labels: QualityLabels, file: Path, folders: Iterable[RecordingFolder]
) -> list[str]:
    """Return a note on quality labels whose strip does not exist, for example if it is misspelt.

    Args:
        labels: Labels of the file.
        file: Path of quality.csv or of the file that the user named.
        folders: Folders of the labelled recordings, after the recordings have been read.
    """
    strips = {name: name for name in labels.spans}
    strips |= {window: window.rpartition("_w")[0] for window in labels.windows}
    searched = list(folders)
    unmatched = [
        name
        for name, strip in strips.items()
        if not any(folder.has_strip(strip) for folder in searched)
    ]
    return _note_not_used(file, unmatched)


def _note_not_used(where: Path, names: list[str]) -> list[str]:
    if not names:
        return []
    listed = shorten_list(sorted(names))
    return [f"{where}: not used, because no recording has this name: {listed}"]
