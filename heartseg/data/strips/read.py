"""Read the strips of several recordings, and the quality labels beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from heartseg.data.strips.folder import Recording, unmatched_labels
from heartseg.data.strips.quality import QualityLabels, read_quality
from heartseg.data.strips.recordings import Defaults, Strip, read_recording
from heartseg.errors import InputError


def read_strips(
    recordings: Sequence[Recording], defaults: Defaults, notes: list[str]
) -> tuple[list[Strip], QualityLabels]:
    """Read the strips of recordings and all quality labels beside them.

    Args:
        recordings: Recordings that were found.
        defaults: Defaults of recordings for which recordings.csv states no spacing.
        notes: List to which notes are added.

    Raises:
        InputError: Files are wrong. The error lists all of them.
    """
    strips: list[Strip] = []
    problems: list[str] = []
    for recording in recordings:
        try:
            strips += read_recording(recording, defaults, notes)
        except InputError as error:
            problems.append(str(error))
    merged = QualityLabels()
    for folder in {one.folder.path: one.folder for one in recordings}.values():
        notes += folder.unmatched_files()
        try:
            problems += folder.unmatched_row_problems()
        except InputError as error:
            problems.append(str(error))
        if folder.quality is None:
            continue
        try:
            labels = read_quality(folder.quality)
        except InputError as error:
            problems.append(str(error))
            continue
        notes += unmatched_labels(labels, folder.quality, [folder])
        merged.spans.update(labels.spans)
        merged.windows.update(labels.windows)
    counts = Counter(strip.name for strip in strips)
    problems += [
        f"{name}: two strips have this name. Rename a recording."
        for name, count in counts.items()
        if count > 1
    ]
    if problems:
        lines = list(dict.fromkeys(problems))  # several recordings can share a faulty table
        listing = "\n".join(f"  - {line}" for line in lines)
        raise InputError(f"{len(lines)} problem(s), nothing was written:\n{listing}")
    if unnamed := sum(strip.animal == strip.recording for strip in strips):
        notes.append(
            f"{unnamed} strip(s) have no animal in recordings.csv, so each recording counts as an "
            "animal of its own. Name the animals if one has several recordings"
        )
    return strips, merged
