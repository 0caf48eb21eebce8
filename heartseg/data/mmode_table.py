"""windows.csv, which may stand beside the folders img/ and mask/ of M-mode windows.

It may give, for each window: name, animal, recording, mm_per_row, s_per_column, quality and the
known lvidd_mm, lvids_mm, heart_rate_bpm. Only name is required; an empty cell means unknown.
Columns of other names are ignored, unless they look like a misspelt one of these.
"""

from __future__ import annotations

import csv
import difflib
import math
import re
from collections import Counter
from pathlib import Path

from heartseg.errors import InputError, one_line
from heartseg.yaml_file import no_such

SPACINGS = ("mm_per_row", "s_per_column")
REFERENCES = {
    "lvidd_mm": "reference_lvidd",
    "lvids_mm": "reference_lvids",
    "heart_rate_bpm": "reference_hr",
}
COLUMNS = ("name", "animal", "recording", *SPACINGS, "quality", *REFERENCES)
MISSPELT = 0.8  # likeness (difflib's ratio) from which on a column is taken for a misspelt one


def read_windows_csv(path: Path, stems: set[str], notes: list[str]) -> dict[str, dict[str, str]]:
    """Rows of windows.csv by window, {} where there is no such file.

    Args:
        path: the file.
        stems: names of the windows that are there, without ".png".
        notes: gets the gaps between the file and the windows.

    Raises:
        InputError: "path: reason. Remedy."
    """
    remedy = "Give it a row per window with a column name, or remove it."
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, skipinitialspace=True)
            lines = [[cell.strip() for cell in line] for line in reader if line]
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}). {remedy}") from None
    header = lines[0] if lines else []
    _check_columns(path, header)
    listed = []
    for number, line in enumerate(lines[1:], start=1):
        if len(line) > len(header):
            raise InputError(
                f"{path}: row {number} below the header has {len(line)} cells for "
                f"{len(header)} columns. Write decimals with a point."
            )
        listed.append(dict.fromkeys(header, "") | dict(zip(header, line, strict=False)))
    names = [re.sub(r"\.png$", "", row["name"], flags=re.IGNORECASE) for row in listed]
    if twice := sorted(name for name, times in Counter(names).items() if times > 1):
        raise InputError(f"{path}: names {twice[0]} more than once. {remedy}")
    if not stems & set(names):
        raise InputError(f"{path}: names none of the windows. {remedy}")
    for column in SPACINGS:
        if column not in header:
            notes.append(f"{path.name}: no column {column}, so params.yaml counts")
    if absent := set(names) - stems:
        notes.append(f"{path.name}: {len(absent)} of its {len(names)} windows are absent")
    if unnamed := stems - set(names):
        notes.append(f"{path.name}: {len(unnamed)} windows have no row, so params.yaml counts")
    return dict(zip(names, listed, strict=True))


def _check_columns(path: Path, header: list[str]) -> None:
    for column in header:
        near = difflib.get_close_matches(column.lower(), COLUMNS, n=1, cutoff=MISSPELT)
        if near and column not in COLUMNS:
            raise InputError(
                f"{path}: {no_such('column', column, near)}. Rename the column, or remove it."
            )
        if near and header.count(column) > 1:
            raise InputError(f"{path}: has the column {column} more than once. Keep one.")
    if "name" not in header:
        raise InputError(f"{path}: has no column name. Give it one with the windows' names.")


def torn_recordings(rows: dict[str, dict[str, str]], path: Path) -> dict[str, str]:
    """A fault for every window whose recording has windows of more than one animal.

    Such windows overlap or come from one heart, and yet could fall into different splits.
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
                f"{path}: the windows of {recording} have the animals {named}. "
                "A recording is of one animal; correct the column animal."
            )
    return faults


def read_numbers(row: dict[str, str], path: Path, faults: list[str]) -> dict[str, float]:
    """The positive numbers of a row; an empty cell is left out, anything else is a fault."""
    numbers = {}
    for column in (*SPACINGS, *REFERENCES):
        if text := row.get(column, ""):
            try:
                value = float(text)
            except ValueError:
                value = math.nan
            if 0 < value < math.inf:
                numbers[column] = value
            else:
                faults.append(
                    f"{path}: {column} of {row['name']} is {text!r}. Give a positive number."
                )
    return numbers
