"""Cut M-mode recordings into square windows around the heart, for training.

Reads DICOM files and pictures of strips, and the traces, recordings.csv and quality.csv beside
them. DIR then contains img/, mask/ and windows.csv, the layout of datasets.mmode.source;
unannotated/ and bad/ with windows that are unsuitable for training; and strips/ with the joined
strips of DICOM files, on which traces can be drawn.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from heartseg.cli import make_app, paragraphs, run_app, run_command
from heartseg.config.params import Params, load_params
from heartseg.errors import InputError, printing_notes

app = make_app()


@app.command(help=paragraphs(__doc__))
def windows(
    recordings: Annotated[
        list[Path], typer.Argument(metavar="FILE_OR_FOLDER", help="Recordings to cut.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to create.")],
    quality: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Model that finds the bad spans of strips without labels, for example "
            "models:/heartseg-mmode-quality@champion.",
        ),
    ] = None,
) -> None:
    if os.path.lexists(out) and not _is_empty(out):
        raise InputError(f"{out}: exists already. Name a new folder, or remove this one.")
    with printing_notes() as notes:
        _cut(recordings, out, quality, load_params(), notes)


def _cut(
    recordings: list[Path], out: Path, quality: str | None, params: Params, notes: list[str]
) -> None:
    from heartseg.data.source import PHANTOM_MARKER
    from heartseg.data.species import SPECIES
    from heartseg.data.strips import training_set
    from heartseg.data.strips.folder import find_recordings
    from heartseg.data.strips.read import read_strips
    from heartseg.data.strips.recordings import Defaults

    found = find_recordings(recordings, notes)
    species = SPECIES[params.datasets.mmode.species]
    spacing = (params.datasets.mmode.mm_per_row, params.datasets.mmode.s_per_column)
    strips, labels = read_strips(found, Defaults(species, spacing), notes)
    if quality:
        from heartseg.prediction.strip_models import label_strips

        label_strips(strips, labels, quality, params, notes)
    cut: training_set.WindowsByFolder = {folder: [] for folder in training_set.FOLDERS}
    for strip in strips:
        own = training_set.sort_windows(strip, labels, params.windows, species.rates, notes)
        for folder in cut:
            cut[folder] += own[folder]
    if not any(cut.values()):
        raise InputError(
            f"{out}: no window could be cut, so nothing was written. The notes state the size that "
            "was tried; set windows.size in params.yaml, or label more columns as good."
        )
    marks = [one.path.parent / PHANTOM_MARKER for one in found]
    marker = next((mark for mark in marks if mark.is_file()), None)
    training_set.write_windows(out, cut, strips, marker)
    train, unannotated, bad = (len(cut[folder]) for folder in training_set.FOLDERS)
    animals = len({window.strip.animal for window, _ in cut[training_set.TO_TRAIN]})
    print(
        f"{out}: {train} window(s) of {animals} animal(s) for training, {unannotated} without "
        f"traces, {bad} of bad quality, from {len(found)} recording(s)"
    )


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


main = partial(run_app, app, "heartseg windows")

if __name__ == "__main__":
    run_command(main)
