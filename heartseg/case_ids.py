"""Show which patient or case a hashed name in MLflow or in a figure stands for.

Reads the prepared dataset and the key on this machine. Without names, lists all.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import get_args

from heartseg.cli import run_command
from heartseg.config.params import load_params
from heartseg.config.recipe import DatasetName
from heartseg.data.privacy import WITHHELD, case_names
from heartseg.errors import InputError
from heartseg.paths import prepared_path


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="heartseg case-ids", description=__doc__)
    parser.add_argument("dataset", choices=get_args(DatasetName))
    parser.add_argument("names", nargs="*", metavar="NAME", help="shown or real")
    options = parser.parse_args(argv)
    prepared = prepared_path(options.dataset)
    found = case_names(load_params().privacy, prepared)
    if found.mode == "none":
        raise InputError(f"privacy.case_ids is none: every name is shown as {WITHHELD!r}")
    pairs = sorted(found.shown_as.items())
    if options.names:
        pairs = [pair for pair in pairs if not set(pair).isdisjoint(options.names)]
        known = {name for pair in pairs for name in pair}
        if unknown := [name for name in options.names if name not in known]:
            raise InputError(
                f"{prepared} has nobody named {', '.join(unknown)}. Another key has other names: "
                "use that of the person who ran the evaluation"
            )
    for real, shown in pairs:
        print(f"{shown}  {real}")


if __name__ == "__main__":
    run_command(main)
