"""Read M-mode recordings: DICOM files or images, with their traces or masks and their scale.

The files beside a recording are found by `heartseg.data.strips.folder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from heartseg.data.csv_table import read_number
from heartseg.data.formats.dicom_header import is_dicom
from heartseg.data.species import Scale, Species, check_scale, describe_unusual_size, lv_height
from heartseg.data.strips.dicom import read_dicom
from heartseg.data.strips.folder import (
    AXES,
    CROP_COLUMNS,
    REFERENCE_COLUMNS,
    SPACINGS,
    TABLE,
    Recording,
    RecordingFolder,
)
from heartseg.data.strips.pictures import read_mask, read_picture
from heartseg.data.strips.traces import fill_between, mask_to_traces, read_traces
from heartseg.errors import InputError


@dataclass(frozen=True)
class Strip:
    """A continuous M-mode strip.

    Attributes:
        name: Name of the strip, equal to that of its recording unless it has several strips.
        recording: Name of the recording.
        animal: Name of the animal, by which datasets are split.
        image: uint8 (H, W).
        upper, lower: Traces (W,) in rows, NaN where not annotated.
        scale: Scale of the pixels.
        from_dicom: Whether the strip was extracted from a DICOM file.
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
        """Mask of the LV between the traces, bool (H, W)."""
        return fill_between(self.upper, self.lower, len(self.image))


@dataclass(frozen=True)
class Defaults:
    """Settings for all recordings.

    Attributes:
        species: Species that the scale is checked against.
        spacing: (mm per row, s per column) of images for which recordings.csv states none.
        spacing_override: (mm per row, s per column) given by the user, which has precedence over
            every other source; None if not given.
    """

    species: Species
    spacing: tuple[float, float]
    spacing_override: tuple[float | None, float | None] = (None, None)


def read_recording(recording: Recording, defaults: Defaults, notes: list[str]) -> list[Strip]:
    """Read the strips of a recording, with their traces if there are any.

    Args:
        recording: Result of `find_recordings`. The names of the strips are stored in its folder.
        defaults: Settings for all recordings.
        notes: List to which unusual properties of the files are appended.

    Raises:
        InputError: A file is invalid, or the scale does not fit the species. The message has the
            form "path: reason. Remedy."
    """
    name, path, folder = recording.name, recording.path, recording.folder
    row = folder.row_of(name)
    given = _numbers(row, (*SPACINGS, *CROP_COLUMNS), folder.table)
    if is_dicom(path):
        dicom = read_dicom(path)
        file_notes, pictures, header = dicom.notes, dicom.strips, dicom.spacing
        if given:
            unused = ", ".join(given)
            file_notes = [*file_notes, f"its header is used instead of {unused} of {TABLE}"]
    else:
        picture, file_notes = read_picture(path)
        pictures, header = [picture], None
    notes += [f"{path}: {note}" for note in file_notes]
    scale = _scale(recording, given, header, defaults, notes)
    count = len(pictures)
    names = [f"{name}_s{number}" if count > 1 else name for number in range(1, count + 1)]
    folder.read_strips[name] = names
    strips = []
    for strip_name, image in zip(names, pictures, strict=True):
        upper, lower = _read_annotation(folder, strip_name, image, notes)
        if header is None:
            rows, columns = (_range(given, axis, image, folder.table, name) for axis in AXES)
            image = image[rows, columns]
            upper, lower = upper[columns] - rows.start, lower[columns] - rows.start
        strip = Strip(strip_name, name, row.get("animal") or name, image, upper, lower, scale,
                      from_dicom=header is not None)  # fmt: skip
        shape, height = (image.shape[0], image.shape[1]), lv_height(strip.mask)
        if problems := check_scale(scale, shape, height, defaults.species):
            raise InputError("\n  - ".join(problems))
        if note := describe_unusual_size(scale, height, defaults.species):
            notes.append(note)
        strips.append(strip)
    return strips


def _scale(
    recording: Recording,
    given: dict[str, float],
    header: tuple[float, float] | None,
    defaults: Defaults,
    notes: list[str],
) -> Scale:
    """Return the scale of a recording.

    The sources, by decreasing precedence, are the override of the user, the DICOM header,
    recordings.csv and params.yaml.
    """
    numbers, sources = [], []
    path, table = recording.path, recording.folder.table
    for axis, key in enumerate(SPACINGS):
        override = defaults.spacing_override[axis]
        if override is not None:
            value, source = override, f"{path}: --{key.replace('_', '-')}"
        elif header is not None:
            delta = "Physical Delta " + "YX"[axis]
            value, source = header[axis], f"{path}: {key} in its DICOM header ({delta})"
        elif key in given:
            value, source = given[key], f"{table}: {key} of {recording.name}"
        else:
            value, source = defaults.spacing[axis], f"{path}: {key} of params.yaml"
            why = f"{table} states none for it" if table else f"there is no {TABLE}"
            notes.append(f"{path}: the {key} of params.yaml, {value:g}, is used because {why}")
        numbers.append(value)
        sources.append(source)
    return Scale(numbers[0], numbers[1], tuple(sources))


def read_references(recording: Recording) -> dict[str, float]:
    """Return the known values of a recording from recordings.csv, by REFERENCE_COLUMNS."""
    return _numbers(
        recording.folder.row_of(recording.name), REFERENCE_COLUMNS, recording.folder.table
    )


def _numbers(row: dict[str, str], columns: Sequence[str], path: Path | None) -> dict[str, float]:
    """Return the known numbers of a row, by column."""
    if not row or path is None:
        return {}
    where = row["recording"]
    numbers = {key: read_number(row[key], key, where, path) for key in columns if row[key]}
    for key in {*SPACINGS, *REFERENCE_COLUMNS} & numbers.keys():
        if numbers[key] <= 0:
            raise InputError(
                f"{path}: {key} of {where} is {numbers[key]:g}. Write a positive number."
            )
    return numbers


def _read_annotation(
    folder: RecordingFolder, name: str, image: np.ndarray, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the traces (W,) of the whole image, from its traces or its mask; NaN if unknown."""
    rows, columns = image.shape
    for kind in ("traces", "mask"):
        files = folder.annotations.get((name, kind), [])
        if len(files) > 1:
            listed = ", ".join(file.name for file in files)
            raise InputError(
                f"{files[0]}: {name} has several {kind} files ({listed}). Keep one of them."
            )
        if not files:
            continue
        if kind == "traces":
            unused = folder.annotations.get((name, "mask"), [])
            notes += [f"{path}: not used, because {files[0].name} exists" for path in unused]
            return read_traces(files[0], rows, columns)
        drawn, file_notes = read_mask(files[0])
        notes += [f"{files[0]}: {note}" for note in file_notes]
        if drawn.shape != image.shape:
            raise InputError(
                f"{files[0]}: has {drawn.shape[0]} x {drawn.shape[1]} pixels (rows x columns), but "
                f"the strip has {rows} x {columns}. Export the mask at the size of the strip."
            )
        upper, lower = mask_to_traces(drawn)
        return upper.astype(np.float64), lower.astype(np.float64)
    return np.full(columns, np.nan), np.full(columns, np.nan)


def _range(
    given: dict[str, float], axis: str, image: np.ndarray, table: Path | None, name: str
) -> slice:
    """Return the rows or columns of the strip within the image."""
    size = image.shape[AXES.index(axis)]
    ends = given.get(f"first_{axis}", 0.0), given.get(f"last_{axis}", size - 1.0)
    first, last = map(int, ends)
    if (first, last) != ends:
        raise InputError(
            f"{table}: {axis}s {ends[0]:g} to {ends[1]:g} of {name} are not integers. Write whole "
            f"{axis} numbers."
        )
    if not 0 <= first < last < size:
        raise InputError(
            f"{table}: {axis}s {first} to {last} of {name} are not inside its image of {size} "
            f"{axis}s. Count from 0, including the last one."
        )
    return slice(first, last + 1)
