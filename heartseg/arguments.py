"""Arguments that several commands take."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def positive(kind: type[int] | type[float]) -> Callable[[str], float]:
    """The type of an argument that is a finite number above 0."""

    def number(text: str) -> float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not positive")
        return value

    return number


def add_in_process(parser: argparse.ArgumentParser) -> None:
    """The argument --in-process of what trains."""
    parser.add_argument(
        "--in-process",
        action="store_true",
        help="train in this very process, without Ray: for a debugger",
    )
