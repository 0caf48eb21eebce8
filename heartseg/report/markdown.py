"""Tables and numbers in Markdown; what is not known is shown as "–"."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

NOTHING = "–"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table with a head; None is shown as unknown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return NOTHING if value is None else str(value).replace("|", "\\|").replace("\n", " ")


def _known(*values: float | None) -> bool:
    return all(value is not None and not math.isnan(value) for value in values)


def number(value: float | None, digits: int = 0) -> str:
    """A number with so many decimals."""
    return f"{value:.{digits}f}" if _known(value) else NOTHING


def interval(low: float | None, high: float | None, digits: int) -> str:
    """Both ends with so many decimals."""
    return f"{low:.{digits}f} to {high:.{digits}f}" if _known(low, high) else NOTHING


def with_interval(found: dict[str, Any], key: str) -> str:
    """A value and, in brackets, its bootstrap interval KEY_low to KEY_high where known."""
    digits = 3 if key == "dice" else 2
    mean, low, high = (found.get(name) for name in (key, f"{key}_low", f"{key}_high"))
    bounds = f" [{interval(low, high, digits)}]" if _known(mean, low, high) else ""
    return number(mean, digits) + bounds
