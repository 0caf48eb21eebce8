"""Errors that the user can mend, told in one message and exit code 2."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn


class InputError(Exception):
    """Something the user gave is wrong; the message names what, why and the remedy."""


class BadFilesError(InputError):
    """Several files of a dataset are wrong; all of them are listed.

    Attributes:
        problems: one line per file, "path: reason. Remedy."
    """

    def __init__(self, dataset: str, problems: Sequence[str]):
        self.problems = list(problems)
        listing = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(
            f"{len(self.problems)} problem(s) in the {dataset} source, nothing was written:\n"
            f"{listing}\n"
            "Mend or remove these files, or leave them out with --skip-bad or with "
            f"datasets.{dataset}.skip_bad: true in params.yaml "
            "(they are then listed in the prepared dataset's metadata)."
        )


def run_command(main: Callable[[Sequence[str] | None], None]) -> NoReturn:
    """Run a command's `main` with exit code 2 for the user's faults and 1 for ours."""
    try:
        main(None)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    sys.exit(0)
