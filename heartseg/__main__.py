"""The program `heartseg`: one command per module, shown in panels by `heartseg --help`.

`heartseg NAME` and `python -m heartseg.NAME` are the same. The module of a command is imported only
when the command is used, because most of them import libraries that take seconds to load.
"""

from __future__ import annotations

import importlib
import os
from importlib import metadata
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from heartseg.cli import build_command, make_app, run_app, run_command

PANELS = {
    "Pipeline": {
        "phantom": "Write synthetic datasets in the layout of the real ones.",
        "prepare": "Check a raw dataset and write it to one Parquet file.",
        "train": "Train a recipe of params.yaml.",
        "evaluate": "Evaluate a trained model on held-out patients.",
        "register": "Register a trained model, and make it champion if it is better.",
    },
    "Search": {
        "sweep": "Search for the best values of a recipe and register the winner.",
        "crossval": "Cross-validate a recipe and register the ensemble of its folds.",
    },
    "Models": {
        "pull": "Copy a registered model to a folder that needs no server.",
        "predict": "Segment images with a registered or pulled model.",
        "serve": "Serve a model as a REST API with a web page.",
        "test": "Measure a registered model on a folder of images with masks.",
        "compare": "Compare two models case by case and write an HTML page.",
    },
    "Provenance": {
        "lineage": "Show what a model was made from, or what was made from data or a patient.",
        "reproduce": "Train and evaluate a model again from its records, and compare.",
        "case-ids": "Show the patients and cases behind hashed names.",
    },
    "M-mode": {
        "recording": "Segment and measure whole M-mode recordings.",
        "windows": "Cut M-mode recordings into windows for training.",
    },
    "Care": {
        "doctor": "Check everything that a run needs, and say how to fix what is wrong.",
        "config": "Show a recipe with all its defaults.",
        "sync": "Send MLflow what was kept while its server did not answer.",
        "clean": "Delete superseded runs to free disk space.",
    },
}
"""Short descriptions of the commands, by panel and name."""

COMMANDS = {name: text for commands in PANELS.values() for name, text in commands.items()}


def module_of(name: str) -> str:
    """Return the module of a command."""
    return "heartseg.config.__main__" if name == "config" else f"heartseg.{name.replace('-', '_')}"


class LazyGroup(TyperGroup):
    """A group of placeholders, each replaced by the command of its module when it is used."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            command = build_command(importlib.import_module(module_of(str(name))).app)
        return name, command, rest

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section per panel where there is no terminal to draw panels on."""
        for panel, commands in PANELS.items():
            with formatter.section(panel):
                formatter.write_dl(list(commands.items()))


app = make_app(cls=LazyGroup, add_completion=True)
for panel, commands in PANELS.items():
    for name, text in commands.items():
        app.command(name, help=text, rich_help_panel=panel)(lambda: None)


def show_version(wanted: bool) -> None:
    if wanted:
        print(f"heartseg {metadata.version('heartseg')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def heartseg(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Heart segmentation in echocardiography: train, evaluate, register and use models.

    `heartseg COMMAND --help` describes a command.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


def main() -> None:
    """Run the command named by the first argument."""
    if "_HEARTSEG_COMPLETE" in os.environ:  # set by the shell to complete a command line
        build_command(app).main(prog_name="heartseg")
    run_command(lambda argv: run_app(app, "heartseg", argv))


if __name__ == "__main__":
    main()
