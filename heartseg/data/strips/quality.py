"""Labels of acquisition quality: quality.csv beside the recordings.

A row labels a span of a strip's time (recording, start_s, end_s, quality) or a window by its
name (window, quality); quality is good or bad.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from heartseg.data.csv_table import read_numbers, read_table
from heartseg.data.strips.pictures import recording_name
from heartseg.errors import InputError

FILE = "quality.csv"
GOOD, BAD = "good", "bad"


@dataclass(frozen=True)
class QualityLabels:
    """Labels by strip and by window.

    Attributes:
        spans: by strip, (start in s, end in s, label).
        windows: by name of the window.
    """

    spans: dict[str, list[tuple[float, float, str]]] = field(default_factory=dict)
    windows: dict[str, str] = field(default_factory=dict)

    def columns(
        self, strip: str, count: int, s_per_column: float
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Good and bad columns of a strip, two bool (count,), None where no span is labelled.

        What lies in no span is neither; what lies in a good and in a bad one is bad.
        """
        if strip not in self.spans:
            return None
        time = (np.arange(count) + 0.5) * s_per_column
        inside = {GOOD: np.zeros(count, bool), BAD: np.zeros(count, bool)}
        for start, end, label in self.spans[strip]:
            inside[label] |= (time >= start) & (time < end)
        return inside[GOOD] & ~inside[BAD], inside[BAD]

    def names_window_of(self, strip: str) -> bool:
        """Whether a window of the strip has a label; windows are called STRIP_wCOLUMN."""
        return any(window.rpartition("_w")[0] == strip for window in self.windows)

    def of_window(self, window: str, others: Sequence[str]) -> str | None:
        """The window's label; None where none of its strip's windows has one.

        "" where only others have one: what nobody has looked at is not known to be good.
        """
        if not any(other in self.windows for other in others):
            return None
        return self.windows.get(window, "")


def spans_of(columns: np.ndarray, s_per_column: float) -> list[tuple[float, float]]:
    """(start in s, end in s) of every run of columns that are True.

    Args:
        columns: bool (W,).
        s_per_column: spacing.
    """
    edges = np.flatnonzero(np.diff(np.pad(columns, 1).astype(np.int8)))
    return [
        (float(first * s_per_column), float(end * s_per_column))
        for first, end in edges.reshape(-1, 2)
    ]


def read_quality(path: Path) -> QualityLabels:
    """The labels in a file, none where there is no file.

    Raises:
        InputError: "path: reason. Remedy."
    """
    labels = QualityLabels()
    if not path.exists():
        return labels
    times = ["start_s", "end_s"]
    table = read_table(path, ["quality"], ["recording", *times, "window"], numbers=times)
    starts, ends = (read_numbers(table, column, path) for column in times)
    named = (table[column].map(recording_name) for column in ("recording", "window"))
    cells = zip(*named, table["quality"].astype(str).str.lower(), strict=True)
    for row, (recording, window, label) in enumerate(cells):
        where = f"{path}: row {row + 1} below the header"
        if label not in (GOOD, BAD):
            raise InputError(f"{where} has the quality {label!r}. Write {GOOD} or {BAD}.")
        if bool(recording) == bool(window):
            raise InputError(f"{where} must name either a recording or a window.")
        if window:
            if labels.windows.setdefault(window, label) != label:
                raise InputError(f"{where} labels {window} again, otherwise. Keep one label.")
        elif not starts[row] < ends[row]:
            raise InputError(f"{where} has no span of time. Give start_s and a later end_s.")
        else:
            spans = labels.spans.setdefault(recording, [])
            spans.append((float(starts[row]), float(ends[row]), label))
    return labels
