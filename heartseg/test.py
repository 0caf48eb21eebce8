"""Measure a registered model on a folder with masks: Dice, IoU and MSE, per image and overall.

The folder has the layout that `heartseg prepare` reads: img/ and mask/ for an M-mode model, a CAMUS
release for a CAMUS model. All of its images are measured, in whichever split they are.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from heartseg.cli import ModelUri, make_app, paragraphs, run_app, run_command
from heartseg.config.params import load_params
from heartseg.datasets import DATASETS
from heartseg.errors import InputError, catch_write_errors, printing_notes

app = make_app()


@app.command(help=paragraphs(__doc__))
def measure(
    model: ModelUri,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder with images and masks.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Write a row per image and structure to this file."),
    ] = None,
) -> None:
    datasets = load_params().datasets
    import pandas as pd

    from heartseg.evaluation.folder import measure_folder, overall
    from heartseg.models.inputs import frame_count
    from heartseg.text import csv_text
    from heartseg.tracking.client import tracking_uri
    from heartseg.tracking.pulled import pull

    pulled = pull(tracking_uri(Path.cwd()), model)
    dataset = pulled.metadata["dataset"]
    if DATASETS[dataset].classifies:
        raise InputError(f"{model} classifies windows; measure it with `heartseg evaluate`")
    if (frames := frame_count(pulled.metadata["recipe"]["model"]["in_channels"])) > 1:
        raise InputError(
            f"{model} needs sequences of {frames} frames, but the folder contains masks of single "
            "images; measure it with `heartseg evaluate`"
        )
    with printing_notes() as notes:
        rows = measure_folder(pulled, datasets.of(dataset), folder, notes)
    table = pd.DataFrame(rows)
    if out is not None:
        with catch_write_errors(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(csv_text(table), encoding="utf-8")
    else:
        print(table.drop(columns=["tp", "fp", "fn"]).to_string(index=False, float_format="%.4f"))
    print(f"\n{model} on {table['case_id'].nunique()} image(s) of {folder}")
    print(overall(table).to_string(float_format="%.4f"))


main = partial(run_app, app, "heartseg test")

if __name__ == "__main__":
    run_command(main)
