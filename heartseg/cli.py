"""What all commands share: exit codes, and arguments that several of them take."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from heartseg.errors import InputError, Stopped, catch_full_disk
from heartseg.gc_tuning import relax_gc
from heartseg.text import printable


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


def run_command(main: Callable[[Sequence[str] | None], None]) -> NoReturn:
    """Run a command's `main` with exit code 2 for the user's faults and 1 for ours."""
    relax_gc()
    try:
        with catch_full_disk(None):
            main(None)
    except InputError as error:
        print(f"error: {printable(str(error), lines=True)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(
            "interrupted; run the same command again: a training goes on from its last checkpoint",
            file=sys.stderr,
        )
        sys.exit(130)
    except Stopped:
        print("asked to end; the same command goes on from here", file=sys.stderr)
        sys.exit(143)  # as of a process that SIGTERM has ended: a scheduler starts it again
    except Exception as error:
        from heartseg.tracking.faults import explain_store_fault

        if (told := explain_store_fault(error)) is not None:
            print(f"error: {printable(told, lines=True)}", file=sys.stderr)
            sys.exit(2)
        traceback.print_exc()
        sys.exit(1)
    sys.exit(0)
