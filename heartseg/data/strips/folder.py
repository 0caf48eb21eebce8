"""A folder with M-mode recordings: their names, and what stands beside them.

Beside a recording NAME.dcm, NAME.png or NAME_img.png may stand NAME_traces.csv (see
`heartseg.data.strips.traces`), or NAME_mask.png where there are no traces; endings are in any case.
A DICOM file whose frames part into several strips is NAME_s1, NAME_s2, ..., and so are their
traces.

recordings.csv in the same folder may give, by recording (its name or its file name): animal,
mm_per_row, s_per_column, and first_row, last_row, first_column, last_column of the strip within a
picture (from 0, inclusive); and what is known of the heart, to measure `heartseg recording` by:
lvidd_mm, lvids_mm, heart_rate_bpm.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from heartseg.config.yaml_file import no_such
from heartseg.data.csv_table import read_table, rows_of
from heartseg.data.strips.dicom import is_dicom
from heartseg.data.strips.pictures import ENDING, KINDS, list_files, recording_name, some
from heartseg.data.strips.quality import FILE as QUALITY
from heartseg.data.strips.quality import QualityLabels
from heartseg.errors import InputError
from heartseg.text import nfc

TABLE = "recordings.csv"
SPACINGS = ("mm_per_row", "s_per_column")
AXES = ("row", "column")
BOX = tuple(f"{end}_{axis}" for axis in AXES for end in ("first", "last"))
KNOWN = ("lvidd_mm", "lvids_mm", "heart_rate_bpm")
NUMBERS = (*SPACINGS, *BOX, *KNOWN)
BESIDE = re.compile(r"_(?P<kind>mask|traces)\.(png|tiff?|jpe?g|csv)$", re.IGNORECASE)
PART = re.compile(r"_s[0-9]+$")
"""Ends the name of one of several strips of a recording."""


@dataclass(frozen=True)
class Folder:
    """A folder with recordings and what stands beside them.

    Attributes:
        path: the folder.
        files: of the recordings, by name.
        drawn: traces and masks, by name of the strip and "traces" or "mask".
        table, quality: recordings.csv and quality.csv, None if there is none.
        other: names of files that are none of these.
        read: names of the strips of each recording that was read.
    """

    path: Path
    files: dict[str, list[Path]]
    drawn: dict[tuple[str, str], list[Path]]
    table: Path | None
    quality: Path | None
    other: list[str]
    read: dict[str, list[str]] = field(default_factory=dict)

    @cached_property
    def rows(self) -> dict[str, dict[str, str]]:
        """The rows of recordings.csv by recording; also those that match none.

        Raises:
            InputError: "path: reason. Remedy."
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
                    f"({', '.join(both)}). Keep one."
                )
            rows[name] = row
        return rows

    def row_of(self, recording: str) -> dict[str, str]:
        """The row of a recording, {} if it has none.

        Raises:
            InputError: it has none, but another row matches nothing and may be meant for it.
        """
        if recording not in self.rows and (strays := self.strays()):
            raise InputError(
                f"{self.table}: has no row for {recording}, and its row {strays[0]!r} matches no "
                "recording. Correct the name, or remove the row."
            )
        return self.rows.get(recording, {})

    def strays(self) -> list[str]:
        """Names in recordings.csv that match no file of the folder."""
        return [row["recording"] for name, row in self.rows.items() if name not in self.files]

    def stray_rows(self) -> list[str]:
        """A problem for every row of recordings.csv that matches no recording."""
        return [
            f"{self.table}: {no_such('recording', name, sorted(self.files))} (correct the name, "
            "or remove the row)"
            for name in self.strays()
        ]

    def has_strip(self, name: str) -> bool:
        """Whether a strip of that name is known, or may be in a recording that was not read."""
        whole = PART.sub("", name)
        if any(name in strips for strips in self.read.values()):
            return True
        return bool({name, whole} & (self.files.keys() - self.read.keys()))

    def unmatched_files(self) -> list[str]:
        """A note on the traces and masks whose name matches no strip, once recordings are read."""
        drawn = self.drawn.items()
        absent = [p.name for (name, _), paths in drawn if not self.has_strip(name) for p in paths]
        return _not_used(self.path, absent)


def _name_of(path: Path) -> str:
    # DICOM files have any ending, and the last number of a UID, as they are named by, is none.
    known = recording_name(path.name)
    as_is = known == nfc(path.name) and not path.suffix[1:].isdigit()
    return nfc(path.stem) if as_is else known


def read_folder(path: Path) -> Folder:
    """List a folder.

    Raises:
        InputError: it cannot be read.
    """
    files: dict[str, list[Path]] = {}
    drawn: dict[tuple[str, str], list[Path]] = {}
    tables: dict[str, Path] = {}
    other = []
    for file in list_files(path):
        if match := BESIDE.search(file.name):
            own = nfc(file.name[: match.start()])
            drawn.setdefault((own, match["kind"].lower()), []).append(file)
        elif file.name.lower() in (TABLE, QUALITY) and file.name.lower() not in tables:
            tables[file.name.lower()] = file
        elif _is_recording(file):
            files.setdefault(_name_of(file), []).append(file)
        else:
            other.append(file.name)
    return Folder(path, files, drawn, tables.get(TABLE), tables.get(QUALITY), other)


def _is_recording(path: Path) -> bool:
    if not path.is_file() or path.name.upper() == "DICOMDIR":
        return False
    return bool(ENDING.search(path.name)) or is_dicom(path)


@dataclass(frozen=True)
class Recording:
    """A file with a recording that nobody has opened yet, and the folder it is in."""

    name: str
    path: Path
    folder: Folder


def find_recordings(inputs: Sequence[Path], notes: list[str]) -> list[Recording]:
    """Find the recordings among files and folders, sorted by name.

    Args:
        inputs: files and folders.
        notes: gets the files of these folders that are not used.

    Raises:
        InputError: an input is missing, holds no recording, or two have one name.
    """
    folders: dict[Path, Folder] = {}
    found: dict[str, Recording] = {}
    for given in inputs:
        if not os.path.exists(given):
            raise InputError(f"{given}: does not exist. Give files, or folders with recordings.")
        whole = os.path.isdir(given)
        place = given if whole else given.parent
        if place not in folders:
            folders[place] = read_folder(place)
        folder = folders[place]
        if whole:
            if folder.other:
                notes.append(f"{given}: not used, for they are no recordings: {some(folder.other)}")
            paths = [path for files in folder.files.values() for path in files]
        else:
            paths = [given] if _is_recording(given) else []
        if not paths:
            raise InputError(
                f"{given}: holds no recording (DICOM, {KINDS}). Name a folder that has some."
                if whole
                else f"{given}: is no recording (DICOM, {KINDS}). Export it as one of these."
            )
        for path in paths:
            name = _name_of(path)
            one = found.setdefault(name, Recording(name, path, folder))
            if not os.path.samefile(one.path, path):
                raise InputError(f"{path}: {one.path} has the same name. Rename one of them.")
    return sorted(found.values(), key=lambda one: one.name)


def unmatched_labels(labels: QualityLabels, file: Path, folders: Iterable[Folder]) -> list[str]:
    """A note on labels that name no strip: a misspelt name would count for nothing.

    Args:
        labels: of the file.
        file: quality.csv, or another one that the user named.
        folders: of the recordings that the labels are for, after these were read.
    """
    strips = {name: name for name in labels.spans}
    strips |= {window: window.rpartition("_w")[0] for window in labels.windows}
    places = list(folders)
    absent = [
        name
        for name, strip in strips.items()
        if not any(folder.has_strip(strip) for folder in places)
    ]
    return _not_used(file, absent)


def _not_used(where: Path, names: list[str]) -> list[str]:
    found = some(sorted(names))
    return [f"{where}: not used, for no recording here has that name: {found}"] if names else []
