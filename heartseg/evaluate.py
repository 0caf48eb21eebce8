"""Evaluate the trained model of a recipe on the held-out patients, at native resolution.

Writes metrics.json (the headline), report.json (all numbers), cases.csv, clinical.csv (a row per
patient or M-mode window) and figures to results/DATASET and to the MLflow run of the training. If
params.yaml says `auto`, test-time augmentation and post-processing are first selected on the
validation patients.
"""

from __future__ import annotations

from functools import partial

from heartseg.cli import RecipeName, make_app, paragraphs, run_app, run_command
from heartseg.config.params import load_params
from heartseg.paths import results_dir

app = make_app()


@app.command(help=paragraphs(__doc__))
def evaluate(recipe: RecipeName) -> None:
    from heartseg.evaluation.evaluate import evaluate_model

    params = load_params()
    dataset = params.recipe(recipe).dataset
    evaluate_model(recipe, dataset, results_dir(dataset), params)


main = partial(run_app, app, "heartseg evaluate")

if __name__ == "__main__":
    run_command(main)
