"""Show what a model was made from, or what was made from data or from a patient's images."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from heartseg.cli import make_app, paragraphs, run_app, run_command
from heartseg.config.params import PARAMS_FILE, load_params
from heartseg.errors import InputError

app = make_app()


@app.command(help=paragraphs(__doc__))
def lineage(
    of: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL_OR_DATA",
            help="models:/NAME@ALIAS, models:/NAME/VERSION or runs:/ID to show what it was made "
            "from; a data path or DVC hash (or its start) to show what was made from it.",
        ),
    ] = None,
    patient: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Patient or animal: show the runs that used its images, and in which split.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    if (of is None) == (patient is None):
        raise InputError("Give either a model, data path or hash, or --patient NAME.")
    root = Path.cwd()
    if not (root / PARAMS_FILE).exists():
        raise InputError(f"{PARAMS_FILE} does not exist; run from the root of the repository")

    from rich.console import Console

    from heartseg.data.privacy import shown_name
    from heartseg.report.lineage import lineage_tree
    from heartseg.tracking.ancestors import find_model, read_lineage
    from heartseg.tracking.client import connect, tracking_uri
    from heartseg.tracking.descendants import (
        filter_by_data,
        filter_by_patient,
        find_descendants,
        versions_without_run,
    )

    client = connect(tracking_uri(root))
    if of is not None and of.startswith(("models:/", "runs:/")):
        chain = read_lineage(client, root, find_model(client, of))
        if as_json:
            print(json.dumps(chain, indent=1))
        else:
            Console(highlight=False).print(lineage_tree(chain, of))
        return
    if patient is not None:
        shown = partial(shown_name, load_params().privacy)
        groups = find_descendants(client, root, filter_by_patient(client, root, patient, shown))
    else:
        groups = find_descendants(client, root, filter_by_data(root, str(of)))
    lost = versions_without_run(client)
    if as_json:
        unknown = [{"unknown": True, "models": lost, "runs": []}] if lost else []
        print(json.dumps(groups + unknown, indent=1))
    else:
        _show(groups, lost, f"patient {patient}" if of is None else of)


def _show(groups: list[dict[str, Any]], lost: list[dict[str, Any]], title: str) -> None:
    """Print the runs and models that used some data, and those for which it is unknown."""
    from rich.console import Console

    from heartseg.data.privacy import KEY_VARIABLE
    from heartseg.report.lineage import descendants_tree

    known = [group for group in groups if not group.get("hashed")]
    hashed = [group for group in groups if group.get("hashed")]
    if known:
        Console(highlight=False).print(descendants_tree(known, title))
    elif not hashed and not lost:
        print(f"no run in this store used {title}")
    if hashed:
        runs = sum(len(group["runs"]) for group in hashed)
        data = ", ".join(group["prepared_md5"] for group in hashed)
        print(
            f"unknown for {runs} run(s): their lists contain hashed names, none of which matches "
            f"{title} with the key on this machine, and their data ({data}) are not in DVC's "
            f"cache. Fetch the data with `dvc pull`, or set {KEY_VARIABLE} to the key of the "
            "person who started the runs"
        )
    if lost:
        names = ", ".join(f"models:/{model['name']}/{model['version']}" for model in lost)
        print(
            f"unknown for {len(lost)} model version(s), because their runs, which recorded their "
            f"data, were deleted from the store: {names}"
        )


main = partial(run_app, app, "heartseg lineage")

if __name__ == "__main__":
    run_command(main)
