"""Train and evaluate a registered model again from its records, and compare.

The recorded code and data are put into a temporary worktree, where the stages train and evaluate
run with an MLflow store of their own, so that runs and registry do not change. Because the recorded
code is a program, it is shown first and runs only after a confirmation. The exit code is 0 if
weights or metrics are identical.
"""

from __future__ import annotations

import json
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heartseg.cli import confirm, make_app, paragraphs, run_app, run_command
from heartseg.config.params import PARAMS_FILE
from heartseg.errors import InputError

if TYPE_CHECKING:
    from heartseg.tracking.reproduction import RecordedTraining

app = make_app()


@app.command(help=paragraphs(__doc__))
def reproduce(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="models:/NAME@ALIAS, models:/NAME/VERSION or runs:/ID."
        ),
    ],
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse to run if the installed packages differ.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the worktree.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Run the recorded code without confirmation.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    root = Path.cwd()
    if not (root / PARAMS_FILE).exists():
        raise InputError(f"{PARAMS_FILE} does not exist; run from the root of the repository")

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the worktree is removed
    from rich.console import Console

    from heartseg.report.verdict import verdict_view
    from heartseg.tracking.ancestors import find_model
    from heartseg.tracking.client import connect, tracking_uri
    from heartseg.tracking.reproduction import (
        differing_packages,
        read_recorded_training,
        reproduction_warnings,
    )
    from heartseg.tracking.rerun import rerun, say

    client = connect(tracking_uri(root))
    recorded = read_recorded_training(client, find_model(client, model), model)
    packages = differing_packages(recorded)
    warnings = reproduction_warnings(root, recorded, packages)
    if warnings and strict:
        raise InputError(
            "\n".join(warnings) + f"\nInstall requirements.lock of commit {recorded.commit}, or "
            "leave out --strict to run anyway"
        )
    for warning in warnings:
        say(f"warning: {warning}")
    _confirm_code(root, recorded, yes=yes)
    verdict = rerun(root, recorded, packages, keep=keep)
    if as_json:
        print(json.dumps(verdict.as_json(), indent=1))
    else:
        Console(highlight=False).print(verdict_view(verdict))
    if not verdict.reproduced:
        raise typer.Exit(1)


def _confirm_code(root: Path, recorded: RecordedTraining, *, yes: bool) -> None:
    """Show the code that would run, and ask for confirmation unless `yes` is given.

    Raises:
        InputError: The user does not confirm, or there is no terminal to ask on.
    """
    from heartseg.tracking.provenance import PATCH_TAG
    from heartseg.tracking.rerun import say
    from heartseg.tracking.worktree import describe_code

    text = describe_code(root, recorded.commit, recorded.patch)
    if recorded.patch:
        text += f"\nMD5 {recorded.tags[PATCH_TAG]}, as recorded by the training"
    for line in text.split("\n"):
        say(line)
    if yes:
        return
    if not sys.stdin.isatty():
        raise InputError(
            "reproduce runs the code above, and there is no terminal to ask on. Give --yes if you "
            "trust it"
        )
    if not confirm("run this code?"):
        raise InputError("nothing was run; answer y, or give --yes")


main = partial(run_app, app, "heartseg reproduce")

if __name__ == "__main__":
    run_command(main)
