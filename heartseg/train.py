"""Train a recipe of params.yaml; the model is left in results/DATASET/model.

The same command goes on with a training that was cut off.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartseg.config import Params, Recipe, Train, load_params
from heartseg.data.prepared import file_digest, read_metadata
from heartseg.errors import InputError, run_command
from heartseg.paths import model_dir, prepared_path, results_dir
from heartseg.tracking.mlflow import repository_root
from heartseg.training.run_dir import RUNS, code_digest, open_run_dir, read_state, update_state

if TYPE_CHECKING:
    from heartseg.data.resident import Resident


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="heartseg train", description=__doc__)
    parser.add_argument("recipe", help="name of a recipe in params.yaml")
    parser.add_argument(
        "--in-process",
        action="store_true",
        help="train in this very process, without Ray: for a debugger",
    )
    options = parser.parse_args(argv)
    params = load_params()
    recipe = params.recipe(options.recipe)
    prepared = prepared_path(recipe.dataset)
    if not prepared.exists():
        raise InputError(f"{prepared} does not exist; run `heartseg prepare {recipe.dataset}`")
    digest = file_digest(prepared)
    runs = repository_root(Path.cwd()) / RUNS
    engine = "in-process" if options.in_process else "ray"
    with open_run_dir(runs, options.recipe, recipe, digest, engine) as run_dir:
        if options.in_process:
            from heartseg.training.in_process import train_here

            _train(options.recipe, params, prepared, digest, run_dir, train_here)
        else:
            _train_on_ray(options.recipe, params, prepared, digest, run_dir)


def _train_on_ray(name: str, params: Params, prepared: Path, digest: str, run_dir: Path) -> None:
    from heartseg.training import ray_train

    with ThreadPoolExecutor(1) as pool:  # images and MLflow get ready while Ray's processes start
        starting = pool.submit(ray_train.start_ray, run_dir / "ray.log")

        def train(*arguments: Any) -> Path:
            starting.result()
            return ray_train.train_on_ray(*arguments)

        try:
            _train(name, params, prepared, digest, run_dir, train)
        finally:
            wait([starting])
            ray_train.shutdown()


def _train(
    name: str,
    params: Params,
    prepared: Path,
    digest: str,
    run_dir: Path,
    train: Callable[[Recipe, Train, dict[str, Resident], Path], Path],
) -> None:
    """Open the run, train, and leave the model; `train` gives the last checkpoint's folder."""
    from heartseg.data.resident import load_resident
    from heartseg.models.trained import save_trained
    from heartseg.tracking.lineage import lineage_tags
    from heartseg.tracking.mlflow import connect, open_run, tracking_uri, without_password
    from heartseg.tracking.tracker import RunTracker
    from heartseg.training.checkpoint import load_checkpoint, selected_weights
    from heartseg.training.display import Display
    from heartseg.training.journal import write_history

    recipe = params.recipe(name)
    data = {split: load_resident(prepared, split, recipe.input_size) for split in ("train", "val")}
    for split, images in data.items():
        if not len(images):
            raise InputError(
                f"{prepared} has no {split} images; change datasets.{recipe.dataset}.split"
            )
    uri = tracking_uri(Path.cwd())
    client = connect(uri)
    tags = lineage_tags(Path.cwd(), recipe.dataset, prepared)
    tags |= {"heartseg.recipe": name, "heartseg.code_md5": code_digest()}
    experiment = params.tracking.experiment_prefix + recipe.dataset
    run_id = open_run(
        client,
        experiment=experiment,
        name=run_dir.name,
        recipe=recipe.model_dump(mode="json"),
        dataset=recipe.dataset,
        data_source=read_metadata(prepared)["source"],
        data_digest=digest,
        tags=tags,
        run_id=read_state(run_dir).get("mlflow_run_id"),
    )
    update_state(run_dir, mlflow_run_id=run_id)
    tracker = RunTracker(
        run_id, run_dir, uri, recipe.dataset, system_metrics=params.tracking.system_metrics
    )
    with tracker, Display(run_dir, name, recipe.epochs):
        checkpoint = train(recipe, params.train, data, run_dir)
    epoch, weights = selected_weights(load_checkpoint(checkpoint))
    training = {
        "recipe_name": name,
        "recipe": recipe.model_dump(mode="json"),
        "epoch": epoch,
        "data_digest": digest,
        "tracking_uri": without_password(uri),
        "experiment": experiment,
        "mlflow_run_id": run_id,
        "tags": tags,
    }
    write_history(run_dir, results_dir(recipe.dataset) / "history.csv")
    save_trained(model_dir(recipe.dataset), weights, training)
    update_state(run_dir, finished=tracker.arrived)
    print(f"{model_dir(recipe.dataset)}: epoch {epoch}; MLflow run {run_dir.name} ({run_id})")


if __name__ == "__main__":
    run_command(main)
