"""What a reader finds in a raw dataset before it opens the images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from heartseg.data.prepared import Sample
from heartseg.errors import unreadable

HIDDEN = (".", "__MACOSX")
"""Beginnings of names that file managers hide; "._" files hold attributes of the files beside."""
PHANTOM_MARKER = "PHANTOM"
"""File at a source's root that says: this dataset is synthetic."""


class Case(Protocol):
    """One frame or window whose files nobody has opened yet."""

    @property
    def case_id(self) -> str: ...

    @property
    def patient(self) -> str: ...

    def read(self) -> Sample:
        """Open the case's files.

        Raises:
            BadFilesError: with every problem of the case, as "path: reason. Remedy."
        """
        ...


@dataclass(frozen=True)
class Survey:
    """What a source holds.

    Attributes:
        cases: sorted by case id.
        problems: faults that belong to no case, as "path: reason. Remedy."
        notes: gaps that are no faults.
        official: the release's own split by patient, None where it has none.
    """

    cases: Sequence[Case]
    problems: list[str]
    notes: list[str]
    official: dict[str, str] | None = None


MOST_NAMES = 8
"""Names that a note lists before it only counts the others."""


def enumerated(names: Sequence[str]) -> str:
    """Names as a list for a note: "a, b and 3 more"."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def files_below(source: Path, problems: list[str]) -> list[Path]:
    """All files below a folder, sorted, without hidden ones; links are followed.

    Args:
        source: the folder.
        problems: gets a line for every folder that cannot be read.
    """

    def note_unreadable(error: OSError) -> None:
        problems.append(str(unreadable(error.filename, error)))

    files: list[Path] = []
    seen = {os.path.realpath(source)}  # links may lead round in a circle
    for folder, folders, names in os.walk(source, onerror=note_unreadable, followlinks=True):
        kept = {os.path.realpath(os.path.join(folder, name)): name for name in folders}
        folders[:] = sorted(
            name for real, name in kept.items() if real not in seen and not name.startswith(HIDDEN)
        )
        seen |= kept.keys()
        files += [Path(folder, name) for name in names if not name.startswith(HIDDEN)]
    return sorted(files)
