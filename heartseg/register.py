"""Register the trained and evaluated model of a recipe, with its model card.

It becomes the champion if it is better than the present one on the same evaluation data.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from heartseg.cli import run_command
from heartseg.config.params import load_params
from heartseg.evaluation.register import register_model
from heartseg.paths import results_dir


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="heartseg register", description=__doc__)
    parser.add_argument("recipe", help="name of a recipe in params.yaml")
    name = parser.parse_args(argv).recipe
    params = load_params()
    dataset = params.recipe(name).dataset
    register_model(name, dataset, results_dir(dataset), params)


if __name__ == "__main__":
    run_command(main)
