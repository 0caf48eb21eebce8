"""The contents of a raw dataset, as found before its images are opened."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from heartseg.data.prepared import Sample
from heartseg.errors import unreadable

HIDDEN = (".", "__MACOSX")
"""Prefixes of hidden files and folders. macOS writes attributes into "._" files and __MACOSX."""
PHANTOM_MARKER = "PHANTOM"
"""Name of the file that marks a source as synthetic."""


class Case(Protocol):
    """One frame or window, whose files are opened by `read`."""

    @property
    def case_id(self) -> str: ...

    @property
    def patient(self) -> str: ...

    def read(self) -> Sample:
        """Read the files of the case.

        Raises:
            BadFilesError: Files are invalid. It lists every problem of the case in the form
                "path: reason. Remedy."
        """
        ...


@dataclass(frozen=True)
class Survey:
    """Contents of a source.

    Attributes:
        cases: Cases sorted by case id.
        problems: Problems that belong to no case, in the form "path: reason. Remedy."
        notes: Notes on missing or unused files that are not problems.
        official: Official split of the release by patient; None if there is none.
    """

    cases: Sequence[Case]
    problems: list[str]
    notes: list[str]
    official: dict[str, str] | None = None


MAX_NAMES = 8
"""Largest number of names that `shorten_list` returns."""


def shorten_list(names: Sequence[str]) -> str:
    """Return names as text for a message, such as "a, b and 3 more"."""
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def files_below(source: Path, problems: list[str]) -> list[Path]:
    """Return all files below a folder, sorted, without hidden ones. Links are followed.

    Args:
        source: The folder.
        problems: List to which a problem is appended for each folder that cannot be read.
    """

    def note_unreadable(error: OSError) -> None:
        problems.append(str(unreadable(error.filename, error)))

    files: list[Path] = []
    seen = {os.path.realpath(source)}  # links may form a cycle
    for folder, folders, names in os.walk(source, onerror=note_unreadable, followlinks=True):
        kept = {os.path.realpath(os.path.join(folder, name)): name for name in folders}
        folders[:] = sorted(
            name for real, name in kept.items() if real not in seen and not name.startswith(HIDDEN)
        )
        seen |= kept.keys()
        files += [Path(folder, name) for name in names if not name.startswith(HIDDEN)]
    return sorted(files)
