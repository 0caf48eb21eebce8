"""`heartseg NAME` does what `python -m heartseg.NAME` does."""

from __future__ import annotations

import importlib
import sys

from heartseg.cli import run_command

COMMANDS = {
    "phantom": "write synthetic datasets in the layout of the real ones",
    "prepare": "read a release, check it, and write one Parquet file",
    "config": "print a recipe of params.yaml with the defaults that it takes",
    "train": "train a recipe of params.yaml",
    "evaluate": "measure a trained model on held-out patients",
    "register": "package a trained model and put it in the registry",
    "sweep": "search the best values of a recipe and register the winner",
    "crossval": "cross-validate a recipe and register the ensemble of its folds",
    "pull": "copy a registered model into a folder that needs no server",
    "predict": "segment images with a registered or pulled model",
    "serve": "answer requests and show a page, with a registered or pulled model",
    "recording": "segment and measure whole M-mode recordings",
    "test": "measure a registered model on a folder with masks",
    "case-ids": "show which case a hashed name stands for",
    "doctor": "look at everything that a run needs, and say how to mend it",
    "compare": "compare two models case by case, on one page",
    "lineage": "tell what made a model, or what was made of some data or a patient's images",
    "reproduce": "make a model again from what is recorded, and compare",
    "sync": "send MLflow what trainings kept while it did not answer",
    "clean": "free the disk space that superseded runs hold",
    "windows": "cut M-mode recordings into windows to train on",
}


def module_of(name: str) -> str:
    """Return the module of a command."""
    return "heartseg.config.__main__" if name == "config" else f"heartseg.{name.replace('-', '_')}"


def main() -> None:
    """Run the command named by the first argument."""
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        listing = "\n".join(f"  {name:<10} {what}" for name, what in COMMANDS.items())
        asked_for_help = len(sys.argv) > 1 and sys.argv[1] in ("-h", "--help")
        print(
            f"usage: heartseg COMMAND …\n\n{listing}\n\nheartseg COMMAND --help tells more",
            file=sys.stdout if asked_for_help else sys.stderr,
        )
        sys.exit(0 if asked_for_help else 2)
    name = sys.argv.pop(1)
    sys.argv[0] = f"heartseg {name}"
    # The import takes seconds, in which Ctrl-C must end the command as it does later.
    run_command(lambda argv: importlib.import_module(module_of(name)).main(argv))


if __name__ == "__main__":
    main()
