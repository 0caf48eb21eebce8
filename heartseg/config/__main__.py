"""`heartseg config show RECIPE` prints a recipe of params.yaml, including its defaults."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import yaml

from heartseg.cli import run_command
from heartseg.config.params import load_params
from heartseg.config.recipe import Recipe


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="heartseg config", description="Print params.yaml.")
    actions = parser.add_subparsers(dest="action", required=True)
    show = actions.add_parser("show", help="print a recipe, including its defaults")
    show.add_argument("recipe", help="name of a recipe in params.yaml")
    options = parser.parse_args(argv)
    recipe = load_params().recipe(options.recipe).model_dump(mode="json")
    own = {key: recipe.pop(key) for key in Recipe.__annotations__}
    print(yaml.safe_dump(own | recipe, sort_keys=False), end="")


if __name__ == "__main__":
    run_command(main)
