"""The CSV tables that people write: by hand, by a script, or by Excel in any language.

Commas, semicolons or tabs; decimal points or commas; UTF-8 with or without a byte order mark, or
UTF-16. Anything that can be read in two ways is refused with the reason.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from heartseg.config.yaml_file import no_such
from heartseg.errors import InputError, one_line, unreadable
from heartseg.text import nfc, unescape_formula

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}([.,][0-9]{3})+")
"""What may be a number with thousands separators: 1.234 or 1,234."""
MISSPELT = 0.8
"""Likeness (difflib's ratio) from which on an unknown column is taken for a misspelt known one."""


def read_table(
    path: Path,
    required: Sequence[str],
    optional: Sequence[str] = (),
    *,
    numbers: Sequence[str] = (),
    others: bool = False,
) -> pd.DataFrame:
    """Read a CSV file as text: a row per line, "" for an empty cell, blank lines dropped.

    A row may end early; its last cells are then empty (Excel leaves them out).

    Args:
        path: the file.
        required, optional: the columns to return, in this order; absent optional ones are "".
        numbers: the columns that hold numbers. Decimal commas in them become points; what is no
            number stays as it is, for `read_numbers` or `read_number` to refuse.
        others: whether columns of other names are ignored, unless they look misspelt.

    Raises:
        InputError: "path: reason. Remedy."; the file cannot be read, or can be read in two ways.
    """
    known = (*required, *optional)
    delimiter, header, rows = _parse(path, known)
    _check_header(path, header, required, known, others)
    for number, row in enumerate(rows, start=1):
        if any(row[len(header) :]):
            raise InputError(
                f"{path}: row {number} below the header has {len(row)} cells for {len(header)} "
                "columns. Quote cells that hold the separator; if decimals have commas, separate "
                "the columns by semicolons."
            )
    places = {name: header.index(name) if name in header else len(header) for name in known}
    table = pd.DataFrame(
        {name: ["".join(row[place : place + 1]) for row in rows] for name, place in places.items()}
    )
    _unify_decimals(path, table, [name for name in numbers if name in header], delimiter)
    return table


def rows_of(table: pd.DataFrame) -> list[dict[str, str]]:
    """The rows of a table, each by column."""
    columns = [str(column) for column in table.columns]
    return [dict(zip(columns, cells, strict=True)) for cells in table.itertuples(index=False)]


def read_numbers(table: pd.DataFrame, column: str, path: Path) -> np.ndarray:
    """Convert a column to float64, NaN for an empty cell.

    Raises:
        InputError: a cell is no number.
    """
    cells = enumerate(table[column], start=1)
    return np.array([read_number(c, column, f"row {k} below the header", path) for k, c in cells])


def read_number(cell: str, column: str, where: str, path: Path) -> float:
    """Convert a cell to a number, NaN if it is empty.

    Args:
        cell: as `read_table` returns it.
        column: its column.
        where: names the row in the error.
        path: of the table.

    Raises:
        InputError: it is no finite number.
    """
    if cell == "":
        return np.nan
    if NUMBER.fullmatch(cell) and np.isfinite(value := float(cell)):
        return value
    raise InputError(
        f"{path}: {column} of {where} is {cell!r}. Give a number without a unit, or leave the "
        "cell empty."
    )


def _parse(path: Path, known: Sequence[str]) -> tuple[str, list[str], list[list[str]]]:
    """Delimiter, header and rows; all cells stripped."""
    text = read_text(path)
    first, _, rest = text.partition("\n")
    if first.strip('"\r ').lower().startswith("sep="):  # Excel's own line
        delimiter, text = first.strip('"\r ')[4:5] or "\t", rest
    else:
        title = next((line for line in text.splitlines() if line.strip()), "")
        delimiter = max(",;\t", key=lambda mark: _names_known(title, mark, known))
    try:
        stream = io.StringIO(text, newline="")
        read = list(csv.reader(stream, delimiter=delimiter, skipinitialspace=True))
    except (csv.Error, TypeError) as error:
        raise InputError(f"{path}: is no CSV table ({one_line(error)}). Save it as CSV.") from None
    lines = [[nfc(unescape_formula(cell.strip())) for cell in line] for line in read]
    lines = [line for line in lines if any(line)]
    if not lines:
        raise InputError(f"{path}: is empty. Give it a header and a row per entry, or remove it.")
    header, rows = [_column(cell, known) for cell in lines[0]], lines[1:]
    while not header[-1]:  # a column that Excel has once seen something in
        header.pop()
    return delimiter, header, rows


def _names_known(header: str, delimiter: str, known: Sequence[str]) -> tuple[int, int]:
    """How many known columns a header line has with this delimiter, and how many columns."""
    cells = [_column(cell.strip('" \r'), known) for cell in header.split(delimiter)]
    return len(set(cells) & set(known)), len(cells)


def _column(cell: str, known: Sequence[str]) -> str:
    """The known column that a cell of the header names, else the cell as it is.

    Case does not count, nor what stands between the words: "MM per row" is mm_per_row.
    """
    name = "_".join(re.findall("[a-z0-9]+", cell.lower()))
    return name if name in known else cell


def read_text(path: Path) -> str:
    """The text of a file in UTF-8 or UTF-16, with or without a byte order mark.

    Raises:
        InputError: "path: reason. Remedy."
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
    if content.startswith(b"PK\3\4") or content.startswith(b"\xd0\xcf\x11\xe0"):
        raise InputError(f"{path}: is an Office document. Save a sheet as CSV, a text as UTF-8.")
    encoding = "utf-8-sig"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif content[1:2] == b"\0" or content[:1] == b"\0":
        encoding = "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8-sig":
            raise InputError(f"{path}: is no text file. Save it as UTF-8.") from None
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}: is not in UTF-8 (line {line}, byte 0x{content[error.start]:02x}). Save it as "
            "UTF-8 (Excel: CSV UTF-8)."
        ) from None
    if "\0" in text:
        raise InputError(f"{path}: is no text file. Save it as UTF-8.")
    return text


def _check_header(
    path: Path, header: list[str], required: Sequence[str], known: Sequence[str], others: bool
) -> None:
    for number, column in enumerate(header, start=1):
        if not column:
            raise InputError(f"{path}: column {number} has no name. Name it in the first line.")
        if header.count(column) > 1 and (column in known or not others):
            raise InputError(f"{path}: has the column {column} more than once. Keep one.")
        near = difflib.get_close_matches(column.lower(), known, n=1, cutoff=MISSPELT)
        if column not in known and (near or not others):
            raise InputError(f"{path}: {no_such('column', column, known)} (rename or remove it)")
    if absent := [column for column in required if column not in header]:
        raise InputError(
            f"{path}: has no column {absent[0]}; its first line is {' '.join(header)!a}. Give it "
            "that column, and separate columns by commas, semicolons or tabs."
        )


def _unify_decimals(path: Path, table: pd.DataFrame, numbers: list[str], delimiter: str) -> None:
    """Turn decimal commas into points in these columns, where the table can mean nothing else."""
    cells = [cell for column in numbers for cell in table[column] if cell]
    points, commas = ([c for c in cells if mark in c] for mark in ".,")
    if points and commas:
        raise InputError(
            f"{path}: has numbers with points ({points[0]!r}) and with commas ({commas[0]!r}). "
            "Write all decimals alike, without thousands separators."
        )
    # One mark alone is a decimal mark, unless it can just as well part thousands: a comma in a file
    # that is itself separated by commas, or a point in a file of a country with decimal commas.
    odd = commas if delimiter == "," else points
    if odd and all(THOUSANDS.fullmatch(cell) for cell in odd):
        raise InputError(
            f"{path}: {odd[0]!r} can be thousands or decimals. Write numbers without thousands "
            "separators."
        )
    if commas:
        table[numbers] = table[numbers].map(
            lambda c: c.replace(",", ".") if c.count(",") == 1 else c
        )
