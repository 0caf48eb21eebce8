"""Tell what made a model, or what was made of some data or of a patient's images."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from heartseg.cli import run_command
from heartseg.config.params import PARAMS_FILE, load_params
from heartseg.data.privacy import KEY_VARIABLE, shown_name
from heartseg.errors import InputError


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="heartseg lineage", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "of",
        nargs="?",
        help="models:/NAME@ALIAS, models:/NAME/VERSION or runs:/ID for what made it; a data path "
        "or a DVC hash (or its start) for all that was made of it",
    )
    what.add_argument("--patient", help="a patient (or animal): who saw it, and in which split")
    parser.add_argument("--json", action="store_true", help="for machines")
    options = parser.parse_args(argv)
    root = Path.cwd()
    if not (root / PARAMS_FILE).exists():
        raise InputError(f"{PARAMS_FILE} does not exist; run from the root of the repository")

    from rich.console import Console

    from heartseg.report.lineage import descendants_tree, lineage_tree
    from heartseg.tracking.client import connect, tracking_uri
    from heartseg.tracking.descendants import (
        filter_by_data,
        filter_by_patient,
        find_descendants,
        versions_without_run,
    )
    from heartseg.tracking.lineage import find_model, read_lineage

    client = connect(tracking_uri(root))
    console = Console(highlight=False)
    if options.of is not None and options.of.startswith(("models:/", "runs:/")):
        chain = read_lineage(client, root, find_model(client, options.of))
        if options.json:
            print(json.dumps(chain, indent=1))
        else:
            console.print(lineage_tree(chain, options.of))
        return
    if options.patient is not None:
        title = f"patient {options.patient}"
        shown = partial(shown_name, load_params().privacy)
        groups = find_descendants(
            client, root, filter_by_patient(client, root, options.patient, shown)
        )
    else:
        title = options.of
        groups = find_descendants(client, root, filter_by_data(root, options.of))
    lost = versions_without_run(client)
    if options.json:
        unknown = [{"unknown": True, "models": lost, "runs": []}] if lost else []
        print(json.dumps(groups + unknown, indent=1))
        return
    told = [group for group in groups if not group.get("hashed")]
    untold = [group for group in groups if group.get("hashed")]
    if told:
        console.print(descendants_tree(told, title))
    elif not untold and not lost:
        print(f"no run in this store saw {title}")
    if untold:
        runs = sum(len(group["runs"]) for group in untold)
        data = ", ".join(group["prepared_md5"] for group in untold)
        print(
            f"cannot be told for {runs} run(s): their lists have hashed names, none of them that "
            f"of {title} by the key here, and DVC's cache lacks their data ({data}). Fetch these "
            f"by `dvc pull`, or let {KEY_VARIABLE} name the key of whoever started the runs"
        )
    if lost:
        names = ", ".join(f"models:/{model['name']}/{model['version']}" for model in lost)
        print(
            f"unknown for {len(lost)} model version(s), whose runs are gone from the store and "
            f"with them the record of their data: {names}"
        )


if __name__ == "__main__":
    run_command(main)
