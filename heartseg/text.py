"""Functions that make untrusted text safe for terminals, browsers and spreadsheets.

Other people write the tags, names and messages of a shared tracking store, and the names of files
and patients.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

_INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories of control characters, invisible formatting (such as the direction of
writing), lone surrogates, and separators of lines and paragraphs."""
_JOINERS = "\u200c\u200d"  # of category Cf, but parts of words in Persian and Indic scripts

_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf")


def nfc(name: str) -> str:
    """Return the name in Unicode's composed form (NFC).

    macOS decomposes letters in file names, so that equal names would otherwise compare unequal.
    """
    return unicodedata.normalize("NFC", name)


def printable(value: T, *, lines: bool = False) -> T:
    """Remove the characters that a terminal or a browser would interpret or hide.

    These are control characters, such as the start of an escape sequence, and the characters that
    reverse the direction of writing.

    Args:
        value: Text, or dicts, lists and tuples of texts and other values at any depth.
        lines: Whether to keep line breaks and tabs. Otherwise each becomes a space, so that a
            name cannot look like a line of its own.

    Returns:
        A value of the same structure. Values that are not texts are unchanged.
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
    hidden = unicodedata.category(character) in _INVISIBLE and character not in _JOINERS
    return "" if hidden else character


# --- cells of CSV files -------------------------------------------------------------------


def csv_text(table: pd.DataFrame, float_format: str | None = None) -> str:
    """Return a table as CSV without its index, with texts escaped by `escape_formula`.

    Every CSV file of heartseg is made by this function. `unescape_formula` restores the cells.

    Args:
        table: Table. Numbers are written unchanged.
        float_format: As in `pandas.DataFrame.to_csv`.
    """
    texts = table.select_dtypes(exclude=["number", "bool"])
    safe = table.assign(**{str(name): texts[name].map(escape_formula) for name in texts})
    # A carriage return inside a cell is quoted only if lines end with one, before Python 3.13.
    inside = texts.map(lambda cell: "\r" in str(cell)).any(axis=None)
    ends = "\r\n" if inside else "\n"
    return safe.to_csv(index=False, float_format=float_format, lineterminator=ends)


def escape_formula(cell: Any) -> Any:
    """Put an apostrophe before a text that a spreadsheet would evaluate as a formula.

    Such a text begins with = + - @, a tab or a line break. Numbers are unchanged, even as text,
    because their evaluation has the same value. A text that already begins with apostrophes and
    one of these characters gets one more, so that `unescape_formula` is the exact inverse.
    """
    if isinstance(cell, str) and _FORMULA.match(cell) and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def unescape_formula(cell: Any) -> Any:
    """Remove the apostrophe that `escape_formula` has added."""
    if isinstance(cell, str) and cell.startswith("'") and _FORMULA.match(cell):
        return cell[1:]
    return cell
