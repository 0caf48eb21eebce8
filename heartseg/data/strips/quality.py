"""Read labels of acquisition quality from quality.csv beside the recordings.

A row labels a time span of a strip (recording, start_s, end_s, quality) or a window (window,
quality). The quality is good or bad.
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
    """Quality labels of time spans and of windows.

    Attributes:
        spans: List of (start in s, end in s, label) by strip.
        windows: Label by name of the window.
    """

    spans: dict[str, list[tuple[float, float, str]]] = field(default_factory=dict)
    windows: dict[str, str] = field(default_factory=dict)

    def columns(
        self, strip: str, count: int, s_per_column: float
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the good and the bad columns of a strip, two bool (count,).

        Columns outside all spans are neither. Columns in a good and in a bad span are bad.

        Args:
            strip: Name of the strip.
            count: Number of columns of the strip.
            s_per_column: Spacing in s.

        Returns:
            None if the strip has no labelled spans.
        """
        if strip not in self.spans:
            return None
        time = (np.arange(count) + 0.5) * s_per_column
        inside = {GOOD: np.zeros(count, bool), BAD: np.zeros(count, bool)}
        for start, end, label in self.spans[strip]:
            inside[label] |= (time >= start) & (time < end)
        return inside[GOOD] & ~inside[BAD], inside[BAD]

    def labels_window_of(self, strip: str) -> bool:
        """Return whether a window of the strip has a label. Windows are named STRIP_wCOLUMN."""
        return any(window.rpartition("_w")[0] == strip for window in self.windows)

    def label_of(self, window: str, others: Sequence[str]) -> str | None:
        """Return the label of a window.

        Args:
            window: Name of the window.
            others: Names of all windows of its strip.

        Returns:
            None if no window of the strip has a label; "" if only other windows have one, because
            a window that was not inspected is not known to be good.
        """
        if not any(other in self.windows for other in others):
            return None
        return self.windows.get(window, "")


def find_spans(columns: np.ndarray, s_per_column: float) -> list[tuple[float, float]]:
    """Return (start in s, end in s) of every run of columns that are True.

    Args:
        columns: bool (W,).
        s_per_column: Spacing in s.
    """
    edges = np.flatnonzero(np.diff(np.pad(columns, 1).astype(np.int8)))
    return [
        (float(first * s_per_column), float(end * s_per_column))
        for first, end in edges.reshape(-1, 2)
    ]


def read_quality(path: Path) -> QualityLabels:
    """Read the labels of a file. There are none if the file does not exist.

    Raises:
        InputError: The file is invalid. The message has the form "path: reason. Remedy."
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
            raise InputError(
                f"{where} must have either a recording or a window. Fill one of these cells."
            )
        if window:
            if labels.windows.setdefault(window, label) != label:
                raise InputError(
                    f"{where} labels {window} differently than a row above. Keep one label."
                )
        elif not starts[row] < ends[row]:
            raise InputError(f"{where} has no time span. Write start_s and a greater end_s.")
        else:
            spans = labels.spans.setdefault(recording, [])
            spans.append((float(starts[row]), float(ends[row]), label))
    return labels
