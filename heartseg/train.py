"""Train a recipe of params.yaml and write the model to results/DATASET/model.

If a training was interrupted, the same command continues it from its last checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from heartseg.cli import InProcess, RecipeName, make_app, paragraphs, run_app, run_command
from heartseg.config.params import Params, load_params
from heartseg.errors import InputError
from heartseg.paths import WEIGHTS, prepared_path

if TYPE_CHECKING:
    from heartseg.config.recipe import Recipe
    from heartseg.tracking.tracked_training import TrackedTraining

app = make_app()


@app.command(help=paragraphs(__doc__))
def train(recipe: RecipeName, in_process: InProcess = False) -> None:
    from heartseg.data.prepared import file_digest
    from heartseg.tracking.client import repository_root
    from heartseg.training.run_dir import RUNS, open_run_dir, stop_on_signals

    params = load_params()
    content = params.recipe(recipe)
    prepared = prepared_path(content.dataset)
    if not prepared.exists():
        raise InputError(f"{prepared} does not exist; run `heartseg prepare {content.dataset}`")
    check_weights(content, recipe)
    digest = file_digest(prepared)
    runs = repository_root(Path.cwd()) / RUNS
    engine = "in-process" if in_process else "ray"
    with (
        open_run_dir(runs, recipe, content, digest, engine) as run_dir,
        stop_on_signals(run_dir),
    ):
        run = _train_here if in_process else _train_on_cluster
        run(partial(_open, recipe, params, prepared, digest, run_dir), run_dir)


def _open(name: str, params: Params, prepared: Path, digest: str, run_dir: Path) -> TrackedTraining:
    from heartseg.tracking.tracked_training import open_training

    return open_training(name, params, prepared, digest, run_dir)


def _train_here(open_training: Callable[[], TrackedTraining], run_dir: Path) -> None:
    from heartseg.training.in_process import train_in_process

    open_training().run(train_in_process)


def _train_on_cluster(open_training: Callable[[], TrackedTraining], run_dir: Path) -> None:
    from heartseg.cluster import train as ray_train

    try:
        # Load images and open the MLflow run while the processes of Ray start, which takes seconds.
        with ThreadPoolExecutor(1) as pool:
            opening = pool.submit(open_training)
            try:
                ray_train.start_ray(run_dir / "ray.log")
                training = opening.result()
            except BaseException:
                with opening.result().tracker:  # closes the run with the status of the exception
                    raise
        training.run(ray_train.train_on_cluster)
    finally:
        ray_train.shutdown()


def check_weights(recipe: Recipe, name: str) -> None:
    """Check that DVC notices changes of the weights that a training starts from.

    Raises:
        InputError: `dvc repro` runs this training, and its weights are outside of weights/DATASET,
            the folder on which the stage depends.
    """
    folder = Path(WEIGHTS) / recipe.dataset
    outside = [
        file
        for file in recipe.weight_files()
        if not Path(os.path.abspath(file)).is_relative_to(folder.absolute())
    ]
    if outside and "DVC_STAGE" in os.environ:  # set by `dvc repro` and `dvc exp run`
        raise InputError(
            f"recipes.{name}.model: {outside[0]} is not in {folder}/, on which the stage depends, "
            f"so DVC would not notice if its content changed. Copy it to {folder}/"
        )


main = partial(run_app, app, "heartseg train")

if __name__ == "__main__":
    run_command(main)
