"""Write synthetic datasets in the layout of the real ones, to data/phantoms."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from heartseg.cli import make_app, paragraphs, run_app, run_command
from heartseg.config.params import load_params
from heartseg.errors import InputError
from heartseg.paths import phantom_dir

PhantomName = Literal["camus", "mmode", "mmode-quality", "recordings"]

app = make_app()


@app.command(help=paragraphs(__doc__))
def phantom(
    dataset: Annotated[
        PhantomName | None, typer.Argument(metavar="DATASET", help="Dataset to write.")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw examples of CAMUS and M-mode phantoms as a PNG."),
    ] = None,
) -> None:
    if dataset is None and picture is None:
        raise InputError("Name a dataset, or give --picture FILE.")
    phantoms = load_params().phantoms
    if dataset:
        from heartseg.data.phantoms.write import write_phantoms

        print(f"wrote {write_phantoms(dataset, phantoms, phantom_dir(dataset))}")
    if picture:
        from heartseg.data.phantoms.picture import draw_picture

        draw_picture(phantoms, picture)
        print(f"wrote {picture}")


main = partial(run_app, app, "heartseg phantom")

if __name__ == "__main__":
    run_command(main)
