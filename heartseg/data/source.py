"""What a reader finds in a raw dataset before it opens the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from heartseg.data.prepared import Sample

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


def notes_on(sample: Sample) -> list[str]:
    """Everything odd about a segmented case that was read, for the user of any command."""
    empty = () if sample.mask.any() else (f"{sample.case_id}: its mask is empty",)
    return [*sample.notes, *empty]
