"""Read CSV tables that were written by hand, by a script, or by Excel in any language.

Columns are separated by commas, semicolons or tabs. Decimals have points or commas. The encoding is
UTF-8, with or without a byte order mark, or UTF-16. A table that is ambiguous is an error.
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

from heartseg.config.yaml_file import unknown_name
from heartseg.errors import InputError, one_line, unreadable
from heartseg.text import nfc, unescape_formula

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}([.,][0-9]{3})+")
"""A number that may have thousands separators, such as 1.234 or 1,234."""
MISSPELLING_CUTOFF = 0.8
"""Similarity (difflib's ratio) from which an unknown column is a misspelt known one."""


def read_table(
    path: Path,
    required: Sequence[str],
    optional: Sequence[str] = (),
    *,
    numbers: Sequence[str] = (),
    ignore_unknown: bool = False,
) -> pd.DataFrame:
    """Read a CSV file as text. Empty cells are "", and blank lines are skipped.

    A row may have fewer cells than the header, because Excel omits empty cells at the end.

    Args:
        path: Path of the file.
        required, optional: Columns to return, in this order. Missing optional columns are "".
        numbers: Columns that contain numbers. Their decimal commas are replaced by points. Cells
            that are not numbers do not change; `read_numbers` and `read_number` reject them.
        ignore_unknown: Whether columns of other names are ignored, unless they look misspelt.

    Returns:
        Table of text with the columns `required` and `optional`.

    Raises:
        InputError: The file cannot be read, or is ambiguous. The message has the form "path:
            reason. Remedy."
    """
    known = (*required, *optional)
    delimiter, header, rows = _parse(path, known)
    _check_header(path, header, required, known, ignore_unknown)
    for number, row in enumerate(rows, start=1):
        if any(row[len(header) :]):
            raise InputError(
                f"{path}: row {number} below the header has {len(row)} cells for {len(header)} "
                "columns. Quote cells that contain the separator. If decimals have commas, "
                "separate the columns by semicolons."
            )
    places = {name: header.index(name) if name in header else len(header) for name in known}
    table = pd.DataFrame(
        {name: ["".join(row[place : place + 1]) for row in rows] for name, place in places.items()}
    )
    _unify_decimals(path, table, [name for name in numbers if name in header], delimiter)
    return table


def rows_of(table: pd.DataFrame) -> list[dict[str, str]]:
    """Return the rows of a table as dicts by column."""
    columns = [str(column) for column in table.columns]
    return [dict(zip(columns, cells, strict=True)) for cells in table.itertuples(index=False)]


def read_numbers(table: pd.DataFrame, column: str, path: Path) -> np.ndarray:
    """Convert a column to float64, with NaN for empty cells.

    Args:
        table: Result of `read_table`.
        column: Name of the column.
        path: Path of the table, for the error.

    Raises:
        InputError: A cell is not a finite number.
    """
    cells = enumerate(table[column], start=1)
    return np.array([read_number(c, column, f"row {k} below the header", path) for k, c in cells])


def read_number(cell: str, column: str, where: str, path: Path) -> float:
    """Convert a cell to a number, or NaN if it is empty.

    Args:
        cell: Cell from `read_table`.
        column: Name of its column, for the error.
        where: Name of its row, for the error.
        path: Path of the table, for the error.

    Raises:
        InputError: The cell is not a finite number.
    """
    if cell == "":
        return np.nan
    if NUMBER.fullmatch(cell) and np.isfinite(value := float(cell)):
        return value
    raise InputError(
        f"{path}: {column} of {where} is {cell!r}. Write a number without a unit, or leave the "
        "cell empty."
    )


def _parse(path: Path, known: Sequence[str]) -> tuple[str, list[str], list[list[str]]]:
    """Return the delimiter, the header and the rows, with all cells stripped."""
    text = read_text(path)
    first, _, rest = text.partition("\n")
    if first.strip('"\r ').lower().startswith("sep="):  # written by Excel
        delimiter, text = first.strip('"\r ')[4:5] or "\t", rest
    else:
        title = next((line for line in text.splitlines() if line.strip()), "")
        delimiter = max(",;\t", key=lambda mark: _names_known(title, mark, known))
    try:
        stream = io.StringIO(text, newline="")
        read = list(csv.reader(stream, delimiter=delimiter, skipinitialspace=True))
    except (csv.Error, TypeError) as error:
        raise InputError(
            f"{path}: is not a CSV table ({one_line(error)}). Save it as CSV."
        ) from None
    lines = [[nfc(unescape_formula(cell.strip())) for cell in line] for line in read]
    lines = [line for line in lines if any(line)]
    if not lines:
        raise InputError(f"{path}: is empty. Write a header and rows, or remove the file.")
    header, rows = [_column(cell, known) for cell in lines[0]], lines[1:]
    while not header[-1]:  # Excel writes empty columns that once had content
        header.pop()
    return delimiter, header, rows


def _names_known(header: str, delimiter: str, known: Sequence[str]) -> tuple[int, int]:
    """Return the numbers of known columns and of all columns of a header with this delimiter."""
    cells = [_column(cell.strip('" \r'), known) for cell in header.split(delimiter)]
    return len(set(cells) & set(known)), len(cells)


def _column(cell: str, known: Sequence[str]) -> str:
    """Return the known column that a header cell names, or the cell if there is none.

    Case and separators of words are ignored: "MM per row" is mm_per_row.
    """
    name = "_".join(re.findall("[a-z0-9]+", cell.lower()))
    return name if name in known else cell


def read_text(path: Path) -> str:
    """Read the text of a file in UTF-8 or UTF-16, with or without a byte order mark.

    Raises:
        InputError: The file cannot be read. The message has the form "path: reason. Remedy."
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
    if content.startswith(b"PK\3\4") or content.startswith(b"\xd0\xcf\x11\xe0"):
        raise InputError(
            f"{path}: is an Office document. Save a sheet as CSV, or a document as UTF-8 text."
        )
    encoding = "utf-8-sig"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif content[1:2] == b"\0" or content[:1] == b"\0":
        encoding = "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8-sig":
            raise InputError(f"{path}: is not a text file. Save it as UTF-8 text.") from None
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}: is not UTF-8 (line {line}, byte 0x{content[error.start]:02x}). Save it as "
            "UTF-8 (in Excel: CSV UTF-8)."
        ) from None
    if "\0" in text:
        raise InputError(f"{path}: is not a text file. Save it as UTF-8 text.")
    return text


def _check_header(
    path: Path,
    header: list[str],
    required: Sequence[str],
    known: Sequence[str],
    ignore_unknown: bool,
) -> None:
    for number, column in enumerate(header, start=1):
        if not column:
            raise InputError(f"{path}: column {number} has no name. Add it to the first line.")
        if header.count(column) > 1 and (column in known or not ignore_unknown):
            raise InputError(f"{path}: has more than one column {column}. Keep one of them.")
        near = difflib.get_close_matches(column.lower(), known, n=1, cutoff=MISSPELLING_CUTOFF)
        if column not in known and (near or not ignore_unknown):
            raise InputError(
                f"{path}: {unknown_name('column', column, known)} (rename or remove it)"
            )
    if absent := [column for column in required if column not in header]:
        raise InputError(
            f"{path}: has no column {absent[0]}; its first line is {' '.join(header)!a}. Add the "
            "column, and separate columns by commas, semicolons or tabs."
        )


def _unify_decimals(path: Path, table: pd.DataFrame, numbers: list[str], delimiter: str) -> None:
    """Replace decimal commas by points in the columns `numbers`, if they are unambiguous."""
    cells = [cell for column in numbers for cell in table[column] if cell]
    points, commas = ([c for c in cells if mark in c] for mark in ".,")
    if points and commas:
        raise InputError(
            f"{path}: has numbers with points ({points[0]!r}) and with commas ({commas[0]!r}). "
            "Use the same decimal mark in all numbers, and no thousands separators."
        )
    # If there is only one mark, it is the decimal mark, unless it may separate thousands: a comma
    # in a comma-separated file, or a point in a file from a country with decimal commas.
    ambiguous = commas if delimiter == "," else points
    if ambiguous and all(THOUSANDS.fullmatch(cell) for cell in ambiguous):
        raise InputError(
            f"{path}: {ambiguous[0]!r} is ambiguous: its mark may separate thousands or decimals. "
            "Write numbers without thousands separators."
        )
    if commas:
        table[numbers] = table[numbers].map(
            lambda c: c.replace(",", ".") if c.count(",") == 1 else c
        )
