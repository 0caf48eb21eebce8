"""Cut M-mode recordings into square windows around the heart, to train on.

Takes DICOM files and pictures of strips, with the traces, recordings.csv and quality.csv beside
them (`heartseg.data.strips.folder`, `mmode_traces`, `mmode_quality`). Writes a new folder: img/,
mask/ and windows.csv, as datasets.mmode.source wants them; unannotated/ and bad/ with the windows
that cannot be trained on; strips/ with the joined strips of DICOM files, to draw traces on.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from heartseg.cli import run_command
from heartseg.config.params import Params, load_params
from heartseg.errors import InputError, printing_notes

if TYPE_CHECKING:
    from heartseg.data.strips.folder import Recording
    from heartseg.data.strips.quality import QualityLabels
    from heartseg.data.strips.recordings import Defaults, Strip


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
    with printing_notes() as notes:
        _cut(options, load_params(), notes)


def _cut(options: argparse.Namespace, params: Params, notes: list[str]) -> None:
    from heartseg.data.source import PHANTOM_MARKER
    from heartseg.data.species import SPECIES
    from heartseg.data.strips import training_set
    from heartseg.data.strips.folder import find_recordings
    from heartseg.data.strips.recordings import Defaults

    found = find_recordings(options.recordings, notes)
    species = SPECIES[params.datasets.mmode.species]
    spacing = (params.datasets.mmode.mm_per_row, params.datasets.mmode.s_per_column)
    strips, labels = _read(found, Defaults(species, spacing), notes)
    if options.quality:
        _judge(strips, labels, options.quality, params, notes)
    windows: training_set.WindowsByFolder = {folder: [] for folder in training_set.FOLDERS}
    for strip in strips:
        cut = training_set.sort_windows(strip, labels, params.windows, species.rates, notes)
        for folder in windows:
            windows[folder] += cut[folder]
    if not any(windows.values()):
        raise InputError(
            f"{options.out}: no window could be cut, so nothing was written. The notes say which "
            "size was tried; set windows.size in params.yaml, or label more columns good."
        )
    marks = [one.path.parent / PHANTOM_MARKER for one in found]
    marker = next((mark for mark in marks if mark.is_file()), None)
    training_set.write_windows(options.out, windows, strips, marker)
    train, unannotated, bad = (len(windows[folder]) for folder in training_set.FOLDERS)
    animals = len({window.strip.animal for window, _ in windows[training_set.TO_TRAIN]})
    print(
        f"{options.out}: {train} window(s) of {animals} animal(s) to train on, {unannotated} "
        f"without traces, {bad} of bad quality, from {len(found)} recording(s)"
    )


def _read(
    found: list[Recording], defaults: Defaults, notes: list[str]
) -> tuple[list[Strip], QualityLabels]:
    """All strips, and all labels of quality beside them.

    Raises:
        InputError: with every file that is wrong.
    """
    from heartseg.data.strips.folder import unmatched_labels
    from heartseg.data.strips.quality import QualityLabels, read_quality
    from heartseg.data.strips.recordings import read_recording

    strips: list[Strip] = []
    problems: list[str] = []
    for recording in found:
        try:
            strips += read_recording(recording, defaults, notes)
        except InputError as error:
            problems.append(str(error))
    together = QualityLabels()
    for folder in {one.folder.path: one.folder for one in found}.values():
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
        together.spans.update(labels.spans)
        together.windows.update(labels.windows)
    times = Counter(strip.name for strip in strips)
    problems += [
        f"{name}: two strips have this name. Rename a recording."
        for name in times
        if times[name] > 1
    ]
    if problems:
        lines = list(dict.fromkeys(problems))  # one table's fault can hit several recordings
        listing = "\n".join(f"  - {line}" for line in lines)
        raise InputError(f"{len(lines)} problem(s), nothing was written:\n{listing}")
    if alone := sum(strip.animal == strip.recording for strip in strips):
        notes.append(
            f"{alone} strip(s) have no animal in recordings.csv: each recording counts as an "
            "animal of its own. Name the animals if one has several recordings"
        )
    return strips, together


def _judge(
    strips: list[Strip], labels: QualityLabels, model: str, params: Params, notes: list[str]
) -> None:
    """Add spans that a model of quality finds, for strips that nobody has labelled."""
    from heartseg.data.species import SPECIES
    from heartseg.data.strips.quality import BAD, GOOD, find_spans
    from heartseg.models.sliding_window import bad_columns
    from heartseg.recording import pull_predictor, size_of

    classify = pull_predictor(model, "mmode-quality")
    rates = SPECIES[params.datasets.mmode.species].rates
    for strip in strips:
        if strip.name in labels.spans or labels.labels_window_of(strip.name):
            notes.append(f"{strip.name}: its labels of quality count, not {model}")
            continue
        bad = bad_columns(classify, strip.image, *size_of(strip, params, rates))
        labels.spans[strip.name] = [
            (start, end, label)
            for label, columns in ((GOOD, ~bad), (BAD, bad))
            for start, end in find_spans(columns, strip.spacing[1])
        ]


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


if __name__ == "__main__":
    run_command(main)
