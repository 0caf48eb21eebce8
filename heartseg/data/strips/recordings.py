"""M-mode recordings as they come: DICOM files or pictures, with what is drawn and known of them.

What stands beside them is found by `heartseg.data.strips.folder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from heartseg.data.csv_table import read_number
from heartseg.data.species import Scale, Species, check_scale, odd_size, tallest
from heartseg.data.strips.dicom import is_dicom, read_dicom
from heartseg.data.strips.folder import AXES, BOX, KNOWN, SPACINGS, TABLE, Folder, Recording
from heartseg.data.strips.pictures import read_mask, read_picture
from heartseg.data.strips.traces import fill_between, read_traces, traces_of
from heartseg.errors import InputError


@dataclass(frozen=True)
class Strip:
    """An M-mode strip without interruption.

    Attributes:
        name: of the strip; that of its recording, unless that has several.
        recording, animal: windows of one animal never part.
        image: uint8 (H, W).
        upper, lower: traces (W,) in pixels, NaN where not annotated.
        scale: of the pixels.
        from_dicom: whether the strip is nowhere on disk yet.
    """

    name: str
    recording: str
    animal: str
    image: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    scale: Scale
    from_dicom: bool

    @property
    def spacing(self) -> tuple[float, float]:
        """(mm per row, s per column)."""
        return self.scale.spacing

    @property
    def annotated(self) -> np.ndarray:
        """Columns with both traces, bool (W,)."""
        return np.isfinite(self.upper)

    @property
    def mask(self) -> np.ndarray:
        """The LV between the traces, bool (H, W)."""
        return fill_between(self.upper, self.lower, len(self.image))


@dataclass(frozen=True)
class Defaults:
    """What counts for all recordings.

    Attributes:
        species: whose hearts must fit the scale.
        general: (mm per row, s per column) of pictures for which recordings.csv gives none.
        asked: the same, where the user overrules every other source; None where not.
    """

    species: Species
    general: tuple[float, float]
    asked: tuple[float | None, float | None] = (None, None)


def read_recording(recording: Recording, defaults: Defaults, notes: list[str]) -> list[Strip]:
    """The strips of a recording, with their traces where there are any.

    Args:
        recording: of `find_recordings`; its folder remembers the strips' names.
        defaults: for what the recording itself does not tell.
        notes: gets what is odd but no fault.

    Raises:
        InputError: "path: reason. Remedy."; also if no heart of the species fits the scale.
    """
    name, path, folder = recording.name, recording.path, recording.folder
    row = folder.row_of(name)
    given = _numbers(row, (*SPACINGS, *BOX), folder.table)
    if is_dicom(path):
        dicom = read_dicom(path)
        odd, pictures, header = dicom.notes, dicom.strips, dicom.spacing
        if given:
            odd = [*odd, f"its own geometry counts, not {', '.join(given)} of {TABLE}"]
    else:
        picture, odd = read_picture(path)
        pictures, header = [picture], None
    notes += [f"{path}: {note}" for note in odd]
    scale = _scale(recording, given, header, defaults, notes)
    count = len(pictures)
    names = [f"{name}_s{number}" if count > 1 else name for number in range(1, count + 1)]
    folder.read[name] = names
    strips = []
    for own, image in zip(names, pictures, strict=True):
        upper, lower = _drawn(folder, own, image, notes)
        if header is None:
            rows, columns = (_range(given, axis, image, folder.table, name) for axis in AXES)
            image = image[rows, columns]
            upper, lower = upper[columns] - rows.start, lower[columns] - rows.start
        strip = Strip(own, name, row.get("animal") or name, image, upper, lower, scale,
                      from_dicom=header is not None)  # fmt: skip
        shape, tall = (image.shape[0], image.shape[1]), tallest(strip.mask)
        if problems := check_scale(scale, shape, tall, defaults.species):
            raise InputError("\n  - ".join(problems))
        if doubt := odd_size(scale, tall, defaults.species):
            notes.append(doubt)
        strips.append(strip)
    return strips


def _scale(
    recording: Recording,
    given: dict[str, float],
    header: tuple[float, float] | None,
    defaults: Defaults,
    notes: list[str],
) -> Scale:
    """The scale of a recording: what was asked for, the DICOM header, the table, params.yaml."""
    numbers, sources = [], []
    path, table = recording.path, recording.folder.table
    for place, key in enumerate(SPACINGS):
        asked = defaults.asked[place]
        if asked is not None:
            value, source = asked, f"{path}: --{key.replace('_', '-')}"
        elif header is not None:
            delta = "Physical Delta " + "YX"[place]
            value, source = header[place], f"{path}: {key} by its DICOM header ({delta})"
        elif key in given:
            value, source = given[key], f"{table}: {key} of {recording.name}"
        else:
            value, source = defaults.general[place], f"{path}: {key} of params.yaml"
            where = f"{table} gives none for it" if table else f"it has no {TABLE}"
            notes.append(f"{path}: {key} is {value:g} by params.yaml, for {where}")
        numbers.append(value)
        sources.append(source)
    return Scale(numbers[0], numbers[1], tuple(sources))


def read_known(recording: Recording) -> dict[str, float]:
    """What recordings.csv says about the heart in a recording, by `KNOWN`."""
    return _numbers(recording.folder.row_of(recording.name), KNOWN, recording.folder.table)


def _numbers(row: dict[str, str], columns: Sequence[str], path: Path | None) -> dict[str, float]:
    """The numbers of a row that are known; the scale must be positive."""
    if not row or path is None:
        return {}
    where = row["recording"]
    numbers = {key: read_number(row[key], key, where, path) for key in columns if row[key]}
    for key in {*SPACINGS, *KNOWN} & numbers.keys():
        if numbers[key] <= 0:
            raise InputError(f"{path}: {key} of {where} is {numbers[key]:g}. It must be positive.")
    return numbers


def _drawn(
    folder: Folder, name: str, image: np.ndarray, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Traces of the whole picture, in its pixels; all NaN where it is not annotated."""
    rows, columns = image.shape
    for kind in ("traces", "mask"):
        files = folder.drawn.get((name, kind), [])
        if len(files) > 1:
            listed = ", ".join(file.name for file in files)
            raise InputError(
                f"{files[0]}: {name} has several files of {kind} ({listed}). Keep one."
            )
        if not files:
            continue
        if kind == "traces":
            unused = folder.drawn.get((name, "mask"), [])
            notes += [f"{path}: not used, because {files[0].name} is there" for path in unused]
            return read_traces(files[0], rows, columns)
        drawn, odd = read_mask(files[0])
        notes += [f"{files[0]}: {note}" for note in odd]
        if drawn.shape != image.shape:
            raise InputError(
                f"{files[0]}: has {drawn.shape[0]} x {drawn.shape[1]} pixels (rows x columns), the "
                f"strip {rows} x {columns}. Export the mask at the strip's size."
            )
        upper, lower = traces_of(drawn)
        return upper.astype(np.float64), lower.astype(np.float64)
    return np.full(columns, np.nan), np.full(columns, np.nan)


def _range(
    given: dict[str, float], axis: str, image: np.ndarray, table: Path | None, name: str
) -> slice:
    """Where the strip is within the picture, along one axis."""
    size = image.shape[AXES.index(axis)]
    ends = given.get(f"first_{axis}", 0.0), given.get(f"last_{axis}", size - 1.0)
    first, last = map(int, ends)
    if (first, last) != ends:
        raise InputError(
            f"{table}: {axis}s {ends[0]:g} to {ends[1]:g} of {name}. Count whole ones."
        )
    if not 0 <= first < last < size:
        raise InputError(
            f"{table}: {axis}s {first} to {last} of {name} are not inside its picture of "
            f"{size} {axis}s. Count from 0, the last one included."
        )
    return slice(first, last + 1)
