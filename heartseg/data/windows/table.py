"""windows.csv, which may stand beside the folders img/ and mask/ of M-mode windows.

It may give, for each window: name, animal, recording, mm_per_row, s_per_column, quality and the
known lvidd_mm, lvids_mm, heart_rate_bpm. Only name is required; an empty cell means unknown.
Columns of other names are ignored, unless they look like a misspelt one of these.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

from heartseg.config.data import MmodeDataset
from heartseg.data.csv_table import read_number, read_table, rows_of
from heartseg.data.species import Scale
from heartseg.data.strips.pictures import some, without_ending
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
    """Rows of windows.csv by window, {} where there is no such file.

    Args:
        path: the file.
        stems: names of the windows that are there, without endings.
        notes: gets the gaps between the file and the windows.

    Raises:
        InputError: "path: reason. Remedy."
    """
    if not path.exists():
        return {}
    table = read_table(path, ["name"], COLUMNS[1:], numbers=NUMBERS, others=True)
    names = [without_ending(name) for name in table["name"]]
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise InputError(f"{path}: has several rows for {some(twice)}. Keep one for each window.")
    if not stems & set(names):
        raise InputError(
            f"{path}: names none of the windows, such as {min(stems, default='none')!r}, but "
            f"{some(names) or 'nothing'}. Name in each row a file of img, or remove the table."
        )
    for column in SPACINGS:
        if not any(table[column]):
            notes.append(f"{path.name}: has no {column}, so params.yaml counts")
    if absent := [name for name in names if name not in stems]:
        notes.append(f"{path.name}: {len(absent)} of its rows name no window: {some(absent)}")
    if unnamed := sorted(stems - set(names)):
        notes.append(
            f"{path.name}: {len(unnamed)} windows have no row, so params.yaml counts: "
            f"{some(unnamed)}"
        )
    return dict(zip(names, rows_of(table), strict=True))


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


def read_numbers(
    row: dict[str, str], path: Path, dataset: str, config: MmodeDataset, faults: list[str]
) -> tuple[dict[str, float], Scale]:
    """The known values of a window (by the names in `REFERENCES`), and its scale.

    Args:
        row: of the window, {} if it has none.
        path: of the table.
        dataset: "mmode" or "mmode-quality".
        config: its section of params.yaml, which gives the scale where the row does not.
        faults: gets a line for every cell that is no positive number.
    """
    where = row.get("name", "")
    found = {}
    for column in NUMBERS:
        try:
            value = read_number(row.get(column, ""), column, where, path)
            if value <= 0:
                raise InputError(f"{path}: {column} of {where} is {value:g}. It must be positive.")
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
