"""Tables and numbers in Markdown. Unknown values are shown as "–"."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

NOTHING = "–"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table.

    Args:
        head: Texts of the header row.
        rows: Cells of each row. None is shown as unknown.
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return NOTHING if value is None else str(value).replace("|", "\\|").replace("\n", " ")


def _known(*values: float | None) -> bool:
    return all(value is not None and not math.isnan(value) for value in values)


def number(value: float | None, digits: int = 0) -> str:
    """Format a number with `digits` decimals."""
    return f"{value:.{digits}f}" if _known(value) else NOTHING


def interval(low: float | None, high: float | None, digits: int) -> str:
    """Format an interval with `digits` decimals, for example "0.1 to 0.2"."""
    return f"{low:.{digits}f} to {high:.{digits}f}" if _known(low, high) else NOTHING


def with_interval(found: dict[str, Any], key: str) -> str:
    """Format found[key] with, in brackets, its interval KEY_low to KEY_high if it is known."""
    digits = 3 if key == "dice" else 2
    mean, low, high = (found.get(name) for name in (key, f"{key}_low", f"{key}_high"))
    bounds = f" [{interval(low, high, digits)}]" if _known(mean, low, high) else ""
    return number(mean, digits) + bounds
