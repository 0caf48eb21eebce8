"""M-mode recordings as they come: DICOM files or PNG strips, with traces and a table beside them.

Beside a recording NAME.dcm, NAME.png or NAME_img.png may stand NAME_traces.csv (see
`heartseg.data.mmode_traces`), or NAME_mask.png where there are no traces. A DICOM file whose
frames part into several strips is NAME_s1, NAME_s2, ..., and so are their traces.

recordings.csv in the same folder may give, by recording: animal, mm_per_row, s_per_column, and
first_row, last_row, first_column, last_column of the strip within a PNG (from 0, inclusive); and
what is known of the heart, to measure `heartseg recording` by: lvidd_mm, lvids_mm, heart_rate_bpm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from heartseg.data.csv_table import read_numbers, read_table
from heartseg.data.mmode import read_gray, read_mask
from heartseg.data.mmode_dicom import is_dicom, read_dicom
from heartseg.data.mmode_traces import fill_between, read_traces, traces_of
from heartseg.errors import InputError

TABLE = "recordings.csv"
SPACINGS = ("mm_per_row", "s_per_column")
AXES = ("row", "column")
BOX = tuple(f"{end}_{axis}" for axis in AXES for end in ("first", "last"))
KNOWN = ("lvidd_mm", "lvids_mm", "heart_rate_bpm")
BESIDE = ("_mask.png", "_traces.csv")


@dataclass(frozen=True)
class Strip:
    """An M-mode strip without interruption.

    Attributes:
        name: of the strip; that of its recording, unless that has several.
        recording, animal: windows of one animal never part.
        image: uint8 (H, W).
        upper, lower: traces (W,) in pixels, NaN where not annotated.
        spacing: (mm per row, s per column).
        from_dicom: whether the strip is nowhere on disk yet.
    """

    name: str
    recording: str
    animal: str
    image: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    spacing: tuple[float, float]
    from_dicom: bool

    @property
    def annotated(self) -> np.ndarray:
        """Columns with both traces, bool (W,)."""
        return np.isfinite(self.upper)

    @property
    def mask(self) -> np.ndarray:
        """The LV between the traces, bool (H, W)."""
        return fill_between(self.upper, self.lower, len(self.image))


def find_recordings(inputs: Sequence[Path]) -> dict[str, Path]:
    """Recordings by name among files and folders, sorted by name.

    Raises:
        InputError: an input is missing, holds no recording, or two have one name.
    """
    found: dict[str, Path] = {}
    for given in inputs:
        if not given.exists():
            raise InputError(f"{given}: does not exist. Give files, or folders with recordings.")
        inside = (
            sorted(path for path in given.iterdir() if path.is_file()) if given.is_dir() else []
        )
        files = [path for path in inside or [given] if _is_recording(path)]
        if not files:
            raise InputError(f"{given}: no DICOM or PNG recording. Export recordings there.")
        for path in files:
            # The last number of a UID, as DICOM files are named by, is no ending.
            stem = path.name if path.suffix[1:].isdigit() else path.stem
            name = stem.removesuffix("_img")
            if found.setdefault(name, path) != path:
                raise InputError(f"{path}: {found[name]} has the same name. Rename one of them.")
    return dict(sorted(found.items()))


def _is_recording(path: Path) -> bool:
    if path.name.startswith(".") or path.name.lower().endswith(BESIDE):
        return False
    return path.suffix.lower() == ".png" or is_dicom(path)


def read_recording(
    name: str, path: Path, spacing: tuple[float, float], notes: list[str]
) -> list[Strip]:
    """The strips of a recording, with their traces where there are any.

    Args:
        name: as of `find_recordings`.
        spacing: of a PNG for which recordings.csv gives none, (mm per row, s per column).
        notes: gets what is odd but no fault.

    Raises:
        InputError: "path: reason. Remedy."
    """
    table = path.parent / TABLE
    animal, given = _read_row(table, name)
    if is_dicom(path):
        return _read_dicom(name, path, animal or name, given, notes)
    for key, value in zip(SPACINGS, spacing, strict=True):
        if key not in given:
            notes.append(f"{path}: {TABLE} has no {key} for it, so params.yaml counts ({value})")
    image = read_gray(path)
    upper, lower = _read_traces(path, name, image)
    rows, columns = (_range(given, axis, image, table, name) for axis in AXES)
    return [
        Strip(
            name,
            name,
            animal or name,
            image[rows, columns],
            upper[columns] - rows.start,
            lower[columns] - rows.start,
            (given.get("mm_per_row", spacing[0]), given.get("s_per_column", spacing[1])),
            from_dicom=False,
        )
    ]


def _read_dicom(
    name: str, path: Path, animal: str, given: dict[str, float], notes: list[str]
) -> list[Strip]:
    dicom = read_dicom(path)
    notes += [f"{path}: {note}" for note in dicom.notes]
    if given:
        notes.append(f"{path}: its own geometry counts, not {', '.join(given)} of {TABLE}")
    count = len(dicom.strips)
    names = [f"{name}_s{number}" if count > 1 else name for number in range(1, count + 1)]
    return [
        Strip(own, name, animal, image, *_read_traces(path, own, image), dicom.spacing, True)
        for own, image in zip(names, dicom.strips, strict=True)
    ]


def _read_row(path: Path, name: str) -> tuple[str, dict[str, float]]:
    """Animal of a recording, "" where unknown, and the numbers that recordings.csv has for it."""
    if not path.exists():
        return "", {}
    table = read_table(path, ["recording"], ["animal", *SPACINGS, *BOX, *KNOWN])
    mine = table[table["recording"] == name]
    if len(mine) > 1:
        raise InputError(f"{path}: names {name} more than once. Keep one row.")
    if mine.empty:
        return "", {}
    numbers = {key: float(read_numbers(mine, key, path)[0]) for key in (*SPACINGS, *BOX)}
    for key in SPACINGS:
        if numbers[key] <= 0:
            raise InputError(f"{path}: {key} of {name} is {numbers[key]:g}. It must be positive.")
    return mine["animal"].iloc[0], {key: v for key, v in numbers.items() if np.isfinite(v)}


def read_known(path: Path, name: str) -> dict[str, float]:
    """What recordings.csv says about the heart in a recording at `path`, by `KNOWN`."""
    table = path.parent / TABLE
    if not table.exists():
        return {}
    rows = read_table(table, ["recording"], ["animal", *SPACINGS, *BOX, *KNOWN])
    mine = rows[rows["recording"] == name]
    values = {key: read_numbers(mine, key, table) for key in KNOWN}
    return {key: float(v[0]) for key, v in values.items() if len(v) and np.isfinite(v[0])}


def _read_traces(path: Path, name: str, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Traces of the whole picture, in its pixels; all NaN where it is not annotated."""
    rows, columns = image.shape
    traces, drawn = path.with_name(f"{name}_traces.csv"), path.with_name(f"{name}_mask.png")
    if traces.exists():
        return read_traces(traces, rows, columns)
    if not drawn.exists():
        return np.full(columns, np.nan), np.full(columns, np.nan)
    mask = read_mask(drawn)
    if mask.shape != image.shape:
        raise InputError(f"{drawn}: has {mask.shape} pixels, the strip {image.shape}. Export both.")
    upper, lower = traces_of(mask > mask.max() / 2)
    return upper.astype(np.float64), lower.astype(np.float64)


def _range(given: dict[str, float], axis: str, image: np.ndarray, table: Path, name: str) -> slice:
    """Where the strip is within the picture, along one axis."""
    size = image.shape[AXES.index(axis)]
    first, last = int(given.get(f"first_{axis}", 0)), int(given.get(f"last_{axis}", size - 1))
    if not 0 <= first < last < size:
        raise InputError(
            f"{table}: {axis}s {first} to {last} of {name} are not inside its picture of "
            f"{size} {axis}s. Count from 0, the last one included."
        )
    return slice(first, last + 1)
