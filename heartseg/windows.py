"""Cut M-mode recordings into square windows around the heart, to train on.

Takes DICOM files and PNG strips, with the traces, recordings.csv and quality.csv beside them
(`heartseg.data.mmode_recordings`, `mmode_traces`, `mmode_quality`). Writes a new folder: img/,
mask/ and windows.csv, as datasets.mmode.source wants them; unannotated/ and bad/ with the windows
that cannot be trained on; strips/ with the joined strips of DICOM files, to draw traces on.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from heartseg.config import Params, load_params
from heartseg.errors import InputError, run_command

if TYPE_CHECKING:
    from heartseg.data.mmode_quality import QualityLabels
    from heartseg.data.mmode_recordings import Strip


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="heartseg windows", description=__doc__)
    parser.add_argument("recordings", nargs="+", type=Path, metavar="FILE_OR_FOLDER")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="a new folder")
    parser.add_argument(
        "--quality",
        metavar="MODEL",
        help="finds the bad spans of strips without labels, for example "
        "models:/heartseg-mmode-quality@champion",
    )
    options = parser.parse_args(argv)
    if os.path.lexists(options.out) and not _is_empty(options.out):
        raise InputError(f"{options.out}: exists already. Name a new folder, or remove this one.")
    params = load_params()
    from heartseg.data import mmode_training_set as training_set
    from heartseg.data.mmode_recordings import find_recordings
    from heartseg.data.source import PHANTOM_MARKER
    from heartseg.metrics.mmode import SPECIES

    notes: list[str] = []
    found = find_recordings(options.recordings)
    spacing = (params.datasets.mmode.mm_per_row, params.datasets.mmode.s_per_column)
    strips, labels = _read(found, spacing, notes)
    notes += training_set.unmatched(labels, strips)
    if options.quality:
        _judge(strips, labels, options.quality, params, notes)
    rates = SPECIES[params.datasets.mmode.species].rates
    windows: training_set.Sorted = {folder: [] for folder in training_set.FOLDERS}
    for strip in strips:
        cut = training_set.sort_windows(strip, labels, params.windows, rates, notes)
        for folder in windows:
            windows[folder] += cut[folder]
    if not any(windows.values()):
        listing = "".join(f"\n  - {note}" for note in notes)
        raise InputError(f"no window could be cut, nothing was written:{listing}")
    marks = [path.parent / PHANTOM_MARKER for path in found.values()]
    marker = next((mark for mark in marks if mark.is_file()), None)
    training_set.write_windows(options.out, windows, strips, marker)
    for note in notes:
        print(f"note: {note}")
    train, unannotated, bad = (len(windows[folder]) for folder in training_set.FOLDERS)
    animals = len({window.strip.animal for window, _ in windows[training_set.TO_TRAIN]})
    print(
        f"{options.out}: {train} window(s) of {animals} animal(s) to train on, {unannotated} "
        f"without traces, {bad} of bad quality, from {len(found)} recording(s)"
    )


def _read(
    found: dict[str, Path], spacing: tuple[float, float], notes: list[str]
) -> tuple[list[Strip], QualityLabels]:
    """All strips, and all labels of quality beside them.

    Raises:
        InputError: with every file that is wrong.
    """
    from heartseg.data.mmode_recordings import read_recording

    strips: list[Strip] = []
    problems: list[str] = []
    for name, path in found.items():
        try:
            strips += read_recording(name, path, spacing, notes)
        except InputError as error:
            problems.append(str(error))
    labels = _read_labels({path.parent for path in found.values()}, problems)
    times = Counter(strip.name for strip in strips)
    problems += [f"{name}: two strips have this name" for name in times if times[name] > 1]
    if problems:
        lines = list(dict.fromkeys(problems))  # one table's fault can hit several recordings
        listing = "\n".join(f"  - {line}" for line in lines)
        raise InputError(f"{len(lines)} problem(s), nothing was written:\n{listing}")
    if alone := sum(strip.animal == strip.recording for strip in strips):
        notes.append(
            f"{alone} strip(s) have no animal in recordings.csv: each recording counts as an "
            "animal of its own. Name the animals if one has several recordings"
        )
    return strips, labels


def _judge(
    strips: list[Strip], labels: QualityLabels, model: str, params: Params, notes: list[str]
) -> None:
    """Add spans that a model of quality finds, for strips that nobody has labelled."""
    from heartseg.data.mmode_quality import BAD, GOOD, spans_of
    from heartseg.metrics.mmode import SPECIES
    from heartseg.models.strips import bad_columns
    from heartseg.recording import pull_predictor, size_of

    classify = pull_predictor(model, "mmode-quality")
    rates = SPECIES[params.datasets.mmode.species].rates
    for strip in strips:
        if strip.name in labels.spans or labels.names_window_of(strip.name):
            notes.append(f"{strip.name}: its labels of quality count, not {model}")
            continue
        bad = bad_columns(classify, strip.image, *size_of(strip, params, rates))
        labels.spans[strip.name] = [
            (start, end, label)
            for label, columns in ((GOOD, ~bad), (BAD, bad))
            for start, end in spans_of(columns, strip.spacing[1])
        ]


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _read_labels(folders: Iterable[Path], problems: list[str]) -> QualityLabels:
    """The labels of all folders together."""
    from heartseg.data.mmode_quality import FILE, QualityLabels, read_quality

    together = QualityLabels()
    for folder in sorted(folders):
        try:
            labels = read_quality(folder / FILE)
        except InputError as error:
            problems.append(str(error))
            continue
        together.spans.update(labels.spans)
        together.windows.update(labels.windows)
    return together


if __name__ == "__main__":
    run_command(main)
