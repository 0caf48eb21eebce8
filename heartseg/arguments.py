"""Arguments that several commands take."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable


def positive(kind: type[int] | type[float]) -> Callable[[str], float]:
    """The type of an argument that is a finite number above 0."""

    def number(text: str) -> float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not positive")
        return value

    return number


def agrees(question: str) -> bool:
    """Ask on the terminal; what is no clear yes is a no, and so is nobody there."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    try:
        return input().strip().lower() in ("y", "yes")
    except EOFError:
        return False


def add_in_process(parser: argparse.ArgumentParser) -> None:
    """The argument --in-process of what trains."""
    parser.add_argument(
        "--in-process",
        action="store_true",
        help="train in this very process, without Ray: for a debugger",
    )
