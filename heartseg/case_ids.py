"""Show the patients and cases behind hashed names in MLflow and in figures.

Reads the prepared dataset and the key on this machine. Without names, lists all of them.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from heartseg.cli import make_app, paragraphs, run_app, run_command
from heartseg.config.params import load_params
from heartseg.config.recipe import DatasetName
from heartseg.errors import InputError
from heartseg.paths import prepared_path

app = make_app()


@app.command(help=paragraphs(__doc__))
def case_ids(
    dataset: Annotated[DatasetName, typer.Argument(metavar="DATASET", help="Prepared dataset.")],
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Hashed or real names to look up."),
    ] = None,
) -> None:
    from heartseg.data.privacy import WITHHELD, case_names

    prepared = prepared_path(dataset)
    found = case_names(load_params().privacy, prepared)
    if found.mode == "none":
        raise InputError(f"privacy.case_ids is none: every name is shown as {WITHHELD!r}")
    pairs = sorted(found.shown_as.items())
    if names:
        pairs = [pair for pair in pairs if not set(pair).isdisjoint(names)]
        known = {name for pair in pairs for name in pair}
        if unknown := [name for name in names if name not in known]:
            raise InputError(
                f"{prepared} has no patient or case named {', '.join(unknown)}. Hashed names "
                "depend on the key: use the key of the person who ran the evaluation"
            )
    for real, shown in pairs:
        print(f"{shown}  {real}")


main = partial(run_app, app, "heartseg case-ids")

if __name__ == "__main__":
    run_command(main)
