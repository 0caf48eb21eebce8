"""Evaluate a recipe's trained model on the held-out patients, at native resolution.

Leaves metrics.json (the headline), report.json (all numbers), cases.csv, clinical.csv (a row per
patient or M-mode window) and figures in results/DATASET and in the training's MLflow run.
Beforehand test-time augmentation and post-processing are decided on the validation patients, where
params.yaml says auto.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from heartseg.cli import run_command
from heartseg.config.params import load_params
from heartseg.evaluation.evaluate import evaluate_model
from heartseg.paths import results_dir

if TYPE_CHECKING:
    pass


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="heartseg evaluate", description=__doc__)
    parser.add_argument("recipe", help="name of a recipe in params.yaml")
    name = parser.parse_args(argv).recipe
    params = load_params()
    dataset = params.recipe(name).dataset
    evaluate_model(name, dataset, results_dir(dataset), params)


if __name__ == "__main__":
    run_command(main)
