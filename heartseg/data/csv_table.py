"""Small CSV files that people write by hand, with complaints that they can act on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from heartseg.errors import InputError, one_line
from heartseg.yaml_file import no_such


def read_table(path: Path, required: Sequence[str], optional: Sequence[str]) -> pd.DataFrame:
    """A CSV file as text, one row per line, "" for an empty cell.

    Raises:
        InputError: the file cannot be read, lacks a column, or has one that nobody knows.
    """
    try:
        table = pd.read_csv(
            path, dtype=str, keep_default_na=False, skipinitialspace=True, encoding="utf-8-sig"
        )
    except Exception as error:  # pandas raises many kinds on a broken file
        raise InputError(
            f"{path}: cannot be read ({one_line(error)}). Export it again as CSV."
        ) from None
    table.columns = table.columns.str.strip()
    known = (*required, *optional)
    for column in table.columns:
        if column not in known:
            raise InputError(f"{path}: {no_such('column', column, known)}. Rename or remove it.")
    if absent := [column for column in required if column not in table.columns]:
        raise InputError(f"{path}: has no column {absent[0]}. Add it.")
    table = table.reindex(columns=list(known), fill_value="")
    return table.apply(lambda cells: cells.fillna("").str.strip())


def read_numbers(table: pd.DataFrame, column: str, path: Path) -> np.ndarray:
    """A column as float64, NaN for an empty cell.

    Raises:
        InputError: a cell is no finite number.
    """
    cells = table[column]
    values = pd.to_numeric(cells, errors="coerce").to_numpy(np.float64)
    wrong = np.flatnonzero((cells != "").to_numpy() & ~np.isfinite(values))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"{path}: {column} is {cells.iloc[row]!r} in row {row + 1} below the header. "
            "Give a number with a decimal point."
        )
    return values
