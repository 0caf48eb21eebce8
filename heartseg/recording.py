"""Segment and measure whole M-mode recordings: DICOM files and pictures of any length.

DIR then contains NAME_beats.csv, NAME_traces.csv, NAME_mask.png and NAME_figure.png for each strip,
and one recordings.csv for all of them.

As in `heartseg windows`, recordings.csv (spacing, known values) and quality.csv (bad spans, which
are excluded) are read if they are beside the recordings. A model can find the bad spans of strips
without quality labels.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from heartseg.cli import make_app, paragraphs, positive, run_app, run_command
from heartseg.config.params import load_params
from heartseg.errors import InputError, printing_notes

app = make_app()


@app.command(help=paragraphs(__doc__))
def recording(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Registered model, for example models:/heartseg-mmode@champion."
        ),
    ],
    recordings: Annotated[
        list[Path], typer.Argument(metavar="FILE_OR_FOLDER", help="Recordings to measure.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results.")],
    mm_per_row: Annotated[
        float | None,
        typer.Option(metavar="MM", callback=positive, help="Depth per row of all recordings."),
    ] = None,
    s_per_column: Annotated[
        float | None,
        typer.Option(metavar="S", callback=positive, help="Time per column of all recordings."),
    ] = None,
    species: Annotated[
        Literal["mouse", "human"] | None,
        typer.Option(help="Default: datasets.mmode.species of params.yaml."),
    ] = None,
    heart_rates: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="MIN MAX",
            callback=positive,
            help="Plausible heart rates per minute. Default: those of the species.",
        ),
    ] = None,
    quality: Annotated[
        str | None,
        typer.Option(
            metavar="CSV_OR_MODEL",
            help="File to use instead of quality.csv, or a model that finds the bad spans of "
            "strips without labels, for example models:/heartseg-mmode-quality@champion.",
        ),
    ] = None,
) -> None:
    params = load_params()

    from heartseg.data.species import SPECIES
    from heartseg.prediction.recordings import Settings, measure_recordings

    chosen = SPECIES[species or params.datasets.mmode.species]
    rates = heart_rates or chosen.rates
    if not rates[0] < rates[1]:
        raise InputError(f"--heart-rates {rates[0]:g} {rates[1]:g}: give the slower rate first")
    settings = Settings(params, chosen, rates, (mm_per_row, s_per_column), quality)
    with printing_notes() as notes:
        measure_recordings(model, recordings, out, settings, notes)


main = partial(run_app, app, "heartseg recording")

if __name__ == "__main__":
    run_command(main)
