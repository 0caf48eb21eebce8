"""Text from elsewhere, made safe for a terminal and for a spreadsheet.

Tags, names and messages of a shared tracking store are written by others, and so are the names of
files and patients.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of controls, invisible formatting (direction of writing among it), lone
surrogates, and separators of lines and paragraphs."""
_JOINERS = "\u200c\u200d"  # formatting, too, but parts of words in Persian and Indic scripts

_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf")


def nfc(name: str) -> str:
    """The name in composed letters (NFC): macOS decomposes them in file names, so that the same
    name would be two."""
    return unicodedata.normalize("NFC", name)


def printable(value: T, *, lines: bool = False) -> T:
    """Remove what a terminal or a browser would obey or hide instead of showing it.

    These are control characters, such as the start of an escape sequence, and the characters that
    reverse the direction of writing.

    Args:
        value: a text, or dicts, lists and tuples of texts and other values at any depth.
        lines: whether line breaks and tabs stay. Otherwise each becomes a space, so that a name
            cannot look like a line of its own.
    """
    if isinstance(value, str):
        return cast(T, "".join(_printable(c, lines) for c in value))
    if isinstance(value, dict):
        found = {printable(k, lines=lines): printable(v, lines=lines) for k, v in value.items()}
        return cast(T, found)
    if isinstance(value, list | tuple):
        return cast(T, type(value)(printable(one, lines=lines) for one in value))
    return value


def _printable(character: str, lines: bool) -> str:
    if character in "\n\t":
        return character if lines else " "
    hidden = unicodedata.category(character) in _UNSEEN and character not in _JOINERS
    return "" if hidden else character


# --- cells of CSV files -------------------------------------------------------------------


def csv_text(table: pd.DataFrame, float_format: str | None = None) -> str:
    """Write a table as CSV without its index, so that a spreadsheet takes no text for a formula.

    Every CSV file that heartseg writes is made here. `unescape_formula` reads the cells back.

    Args:
        table: numbers stay as they are.
        float_format: as of `pandas.DataFrame.to_csv`.
    """
    texts = table.select_dtypes(exclude=["number", "bool"])
    safe = table.assign(**{str(name): texts[name].map(escape_formula) for name in texts})
    # A carriage return inside a cell is quoted only if lines end with one, before Python 3.13.
    inside = texts.map(lambda cell: "\r" in str(cell)).any(axis=None)
    ends = "\r\n" if inside else "\n"
    return safe.to_csv(index=False, float_format=float_format, lineterminator=ends)


def escape_formula(cell: Any) -> Any:
    """Put an apostrophe before a text that a spreadsheet would compute.

    Such a text begins with = + - @, a tab or a line break. A number does not change, also as text:
    it is the same after it was computed. A text that begins with an apostrophe before one of these
    characters gets another one, so that `unescape_formula` always gives back what was there.
    """
    if isinstance(cell, str) and _FORMULA.match(cell) and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def unescape_formula(cell: Any) -> Any:
    """Take away the apostrophe of `escape_formula`, and no other."""
    if isinstance(cell, str) and cell.startswith("'") and _FORMULA.match(cell):
        return cell[1:]
    return cell
