"""`heartseg config show RECIPE` prints a recipe of params.yaml with the defaults that it takes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import yaml

from heartseg.cli import run_command
from heartseg.config.params import load_params
from heartseg.config.recipe import Recipe


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="heartseg config", description="Look into params.yaml.")
    actions = parser.add_subparsers(dest="action", required=True)
    show = actions.add_parser("show", help="print a recipe with the defaults that it takes")
    show.add_argument("recipe", help="a name below `recipes` in params.yaml")
    options = parser.parse_args(argv)
    recipe = load_params().recipe(options.recipe).model_dump(mode="json")
    knobs = {key: recipe.pop(key) for key in Recipe.__annotations__}
    print(yaml.safe_dump(knobs | recipe, sort_keys=False), end="")


if __name__ == "__main__":
    run_command(main)
