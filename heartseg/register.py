"""Register the trained and evaluated model of a recipe, with its model card.

The model becomes champion if it is better than the present champion on the same evaluation data.
"""

from __future__ import annotations

from functools import partial

from heartseg.cli import RecipeName, make_app, paragraphs, run_app, run_command
from heartseg.config.params import load_params
from heartseg.paths import results_dir

app = make_app()


@app.command(help=paragraphs(__doc__))
def register(recipe: RecipeName) -> None:
    from heartseg.evaluation.register import register_model

    params = load_params()
    dataset = params.recipe(recipe).dataset
    register_model(recipe, dataset, results_dir(dataset), params)


main = partial(run_app, app, "heartseg register")

if __name__ == "__main__":
    run_command(main)
