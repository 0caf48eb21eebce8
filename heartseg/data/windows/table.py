"""Read windows.csv, the optional table beside the folders img/ and mask/ of M-mode windows.

Its columns are name, animal, recording, mm_per_row, s_per_column, quality, and the known values
lvidd_mm, lvids_mm and heart_rate_bpm. Only name is required. An empty cell means unknown. Other
columns are ignored, unless they look like a misspelt column of these.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

from heartseg.config.data import MmodeDataset
from heartseg.data.csv_table import read_number, read_table, rows_of
from heartseg.data.source import shorten_list
from heartseg.data.species import Scale
from heartseg.data.strips.pictures import without_suffix
from heartseg.errors import InputError

SPACINGS = ("mm_per_row", "s_per_column")
REFERENCES = {
    "lvidd_mm": "reference_lvidd",
    "lvids_mm": "reference_lvids",
    "heart_rate_bpm": "reference_hr",
}
COLUMNS = ("name", "animal", "recording", *SPACINGS, "quality", *REFERENCES)
NUMBERS = (*SPACINGS, *REFERENCES)


def read_windows_csv(path: Path, stems: set[str], notes: list[str]) -> dict[str, dict[str, str]]:
    """Read the rows of windows.csv by window.

    Args:
        path: Path of the file, which need not exist.
        stems: Names of the existing windows without suffix.
        notes: List to which mismatches between the file and the windows are appended.

    Returns:
        Rows by name of the window; empty if the file does not exist.

    Raises:
        InputError: The file is invalid. The message has the form "path: reason. Remedy."
    """
    if not path.exists():
        return {}
    table = read_table(path, ["name"], COLUMNS[1:], numbers=NUMBERS, ignore_unknown=True)
    names = [without_suffix(name) for name in table["name"]]
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise InputError(
            f"{path}: has several rows for {shorten_list(twice)}. Keep one for each window."
        )
    if not stems & set(names):
        raise InputError(
            f"{path}: contains none of the windows, such as {min(stems, default='none')!r}, but "
            f"{shorten_list(names) or 'no names'}. Write the name of a file in img into each row, "
            "or remove the table."
        )
    for column in SPACINGS:
        if not any(table[column]):
            notes.append(f"{path.name}: has no {column}, so that of params.yaml is used")
    if absent := [name for name in names if name not in stems]:
        notes.append(
            f"{path.name}: {len(absent)} of its rows name no window: {shorten_list(absent)}"
        )
    if unnamed := sorted(stems - set(names)):
        notes.append(
            f"{path.name}: {len(unnamed)} windows have no row, so params.yaml is used for them: "
            f"{shorten_list(unnamed)}"
        )
    return dict(zip(names, rows_of(table), strict=True))


def find_mixed_recordings(rows: dict[str, dict[str, str]], path: Path) -> dict[str, str]:
    """Find windows whose recording has windows of more than one animal.

    Windows of a recording overlap or show the same heart, so they must not be in different splits.

    Args:
        rows: Result of `read_windows_csv`.
        path: Path of the table, for the messages.

    Returns:
        Problem by name of the window.
    """
    animals: dict[str, set[str]] = {}
    for row in rows.values():
        animals.setdefault(row.get("recording", ""), set()).add(row.get("animal", ""))
    faults = {}
    for name, row in rows.items():
        recording = row.get("recording", "")
        if recording and len(animals[recording]) > 1:
            named = ", ".join(sorted(animal or "none" for animal in animals[recording]))
            faults[name] = (
                f"{path}: the windows of {recording} have different animals: {named}. A recording "
                "shows one animal. Correct the column animal."
            )
    return faults


def read_numbers(
    row: dict[str, str], path: Path, dataset: str, config: MmodeDataset, faults: list[str]
) -> tuple[dict[str, float], Scale]:
    """Return the known values of a window, by the names in `REFERENCES`, and its scale.

    Args:
        row: Row of the window, or {}.
        path: Path of the table.
        dataset: "mmode" or "mmode-quality".
        config: Settings of the dataset from params.yaml, whose scale is used if the row has none.
        faults: List to which a problem is appended for each cell that is not a positive number.
    """
    where = row.get("name", "")
    found = {}
    for column in NUMBERS:
        try:
            value = read_number(row.get(column, ""), column, where, path)
            if value <= 0:
                raise InputError(
                    f"{path}: {column} of {where} is {value:g}. Write a positive number."
                )
        except InputError as error:
            faults.append(str(error))
            continue
        if not math.isnan(value):
            found[column] = value
    scale = {column: found.get(column, getattr(config, column)) for column in SPACINGS}
    sources = (
        f"{path}: {column} of {where}"
        if column in found
        else f"params.yaml: datasets.{dataset}.{column}"
        for column in SPACINGS
    )
    references = {REFERENCES[key]: value for key, value in found.items() if key in REFERENCES}
    return references, Scale(**scale, sources=tuple(sources))
