"""Train a recipe of params.yaml; the model is left in results/DATASET/model.

The same command goes on with a training that was cut off.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from heartseg.cli import add_in_process, run_command
from heartseg.config.params import Params, Train, load_params
from heartseg.config.recipe import Recipe
from heartseg.data.prepared import file_digest, read_metadata
from heartseg.data.privacy import case_names
from heartseg.errors import InputError, catch_full_disk
from heartseg.paths import WEIGHTS, model_dir, prepared_path, results_dir
from heartseg.tracking.client import repository_root
from heartseg.training.run_dir import (
    RUNS,
    clear_checkpoints,
    code_digest,
    open_run_dir,
    read_state,
    stopped_by_signals,
    update_state,
)

if TYPE_CHECKING:
    from heartseg.data.resident import Resident
    from heartseg.models.trained import TrainingRecord
    from heartseg.tracking.tracker import RunTracker


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="heartseg train", description=__doc__)
    parser.add_argument("recipe", help="name of a recipe in params.yaml")
    add_in_process(parser)
    options = parser.parse_args(argv)
    params = load_params()
    recipe = params.recipe(options.recipe)
    prepared = prepared_path(recipe.dataset)
    if not prepared.exists():
        raise InputError(f"{prepared} does not exist; run `heartseg prepare {recipe.dataset}`")
    _check_weights(recipe, options.recipe)
    digest = file_digest(prepared)
    runs = repository_root(Path.cwd()) / RUNS
    engine = "in-process" if options.in_process else "ray"
    with (
        open_run_dir(runs, options.recipe, recipe, digest, engine) as run_dir,
        stopped_by_signals(run_dir),
    ):
        if options.in_process:
            from heartseg.training.in_process import train_here

            _train(_get_ready(options.recipe, params, prepared, digest, run_dir), train_here)
            return

        from heartseg.cluster import train as ray_train

        try:
            # Images and MLflow get ready while Ray's processes start, which takes seconds.
            with ThreadPoolExecutor(1) as pool:
                ready = pool.submit(_get_ready, options.recipe, params, prepared, digest, run_dir)
                try:
                    ray_train.start_ray(run_dir / "ray.log")
                    ready.result()
                except BaseException:
                    with ready.result().tracker:  # ends the run as what was raised says
                        raise
            _train(ready.result(), ray_train.train_on_cluster)
        finally:
            ray_train.shutdown()


def _check_weights(recipe: Recipe, name: str) -> None:
    """Raise InputError where DVC would not notice that weights to start from have changed."""
    folder = Path(WEIGHTS) / recipe.dataset
    outside = [
        file
        for file in recipe.weight_files()
        if not Path(os.path.abspath(file)).is_relative_to(folder.absolute())
    ]
    if outside and "DVC_STAGE" in os.environ:  # set by `dvc repro` and `dvc exp run`
        raise InputError(
            f"recipes.{name}.model: {outside[0]} is not in {folder}/, which the stage depends on: "
            f"DVC would not notice when its content changes. Copy it to {folder}/"
        )


@dataclass(frozen=True)
class Ready:
    """All that a training needs.

    Attributes:
        training: Record of the training, without epoch and MLflow run.
    """

    recipe: Recipe
    how: Train
    data: dict[str, Resident]
    run_dir: Path
    tracker: RunTracker
    training: TrainingRecord


def _get_ready(name: str, params: Params, prepared: Path, digest: str, run_dir: Path) -> Ready:
    """Load the images, and start the MLflow run or continue it."""
    from heartseg.data.resident import load_resident
    from heartseg.models.trained import TrainingRecord
    from heartseg.tracking.artifacts import collect_lineage_files, write_lineage_files
    from heartseg.tracking.client import TRAINING_KEY, connect, portable_uri, tracking_uri
    from heartseg.tracking.faults import store_errors, writing_to_store
    from heartseg.tracking.provenance import lineage_tags, started_from
    from heartseg.tracking.sender import FILES, FILES_SENT, ArtifactSender
    from heartseg.tracking.tracker import RunTracker, open_training_run

    recipe = params.recipe(name)
    data = {split: load_resident(prepared, split, recipe.input_size) for split in ("train", "val")}
    for split, images in data.items():
        if not len(images):
            raise InputError(
                f"{prepared} has no {split} images; change datasets.{recipe.dataset}.split"
            )
    # Renamed here: workers, journal and the figures in MLflow never see the real ones.
    names = case_names(params.privacy, prepared)
    data["val"] = data["val"].renamed(names.shown)
    uri = tracking_uri(Path.cwd())
    tags = lineage_tags(Path.cwd(), recipe.dataset, prepared)
    tags |= {"heartseg.recipe": name, "heartseg.code_md5": code_digest()}
    tags |= started_from(recipe.weight_files())
    before = read_state(run_dir).get("opening", {"tags": {}})
    tags[TRAINING_KEY] = before["tags"].get(TRAINING_KEY) or uuid.uuid4().hex
    opening = {
        "experiment": params.tracking.experiment_prefix + recipe.dataset,
        "name": run_dir.name,
        "params": recipe.model_dump(mode="json"),
        "texts": {},  # its files follow on a way of their own: see ArtifactSender
        "dataset": recipe.dataset,
        "data_source": read_metadata(prepared)["source"],
        "data_digest": digest,
        "tags": tags,
    }
    shown = portable_uri(uri, Path.cwd())
    # KILLED is what `heartseg sync` would say of this training if it ended now.
    update_state(run_dir, opening=opening, tracking_uri=shown, status="KILLED", sent=False)
    records = collect_lineage_files(Path.cwd())
    with catch_full_disk(run_dir / FILES):
        shutil.rmtree(run_dir / FILES, ignore_errors=True)
        (run_dir / FILES_SENT).unlink(missing_ok=True)
        write_lineage_files(run_dir / FILES, records, prepared, names)
        text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
        (run_dir / FILES / "recipe.yaml").write_text(text, encoding="utf-8")
    run_id = None
    try:
        client = connect(uri)
        with writing_to_store(client, "the run"):
            run_id = open_training_run(client, run_dir).run_id
            ArtifactSender(client, run_id, run_dir, recipe.dataset).send()
    except InputError as error:
        if params.tracking.offline == "fail":
            if run_id is not None:
                with contextlib.suppress(*store_errors()):  # it may be what does not answer
                    client.set_terminated(run_id, "FAILED")
            raise
        print(f"{error}; training without it (tracking.offline: buffer)", file=sys.stderr)
    except KeyboardInterrupt:
        if run_id is not None:
            client.set_terminated(run_id, "KILLED")
        raise
    monitored = params.tracking.system_metrics
    tracker = RunTracker(run_id, run_dir, uri, recipe.dataset, system_metrics=monitored)
    training = TrainingRecord(
        recipe_name=name,
        recipe=recipe.model_dump(mode="json"),
        data_digest=digest,
        tracking_uri=shown,
        experiment=opening["experiment"],
        tags=tags,
        records=records,
    )
    return Ready(recipe, params.train, data, run_dir, tracker, training)


def _train(ready: Ready, train: Callable[[Recipe, Train, dict[str, Resident], Path], Path]) -> None:
    """Train and leave the model; `train` gives the folder of the last checkpoint."""
    from heartseg.models.trained import save_trained
    from heartseg.training.checkpoint import load_checkpoint, selected_weights
    from heartseg.training.display import Display
    from heartseg.training.journal import write_history
    from heartseg.training.machine import machine_tags

    recipe, run_dir = ready.recipe, ready.run_dir
    name = ready.training.recipe_name
    with ready.tracker, Display(run_dir, name, recipe.epochs):
        checkpoint = train(recipe, ready.how, ready.data, run_dir)
    epoch, weights = selected_weights(load_checkpoint(checkpoint))
    write_history(run_dir, results_dir(recipe.dataset) / "history.csv")
    run_id = read_state(run_dir).get("mlflow_run_id")  # a buffered one may have got its own by now
    tags = ready.training.tags | machine_tags(run_dir)
    about = {"mlflow_run_id": run_id, "tags": tags, "epoch": epoch}
    training = ready.training.model_copy(update=about)
    save_trained(model_dir(recipe.dataset), weights, training)
    # Not finished while points wait for the server: the same command then sends them.
    update_state(run_dir, finished=ready.tracker.arrived)
    clear_checkpoints(run_dir, keep=1)
    where = f"({run_id})" if run_id else "waits for `heartseg sync`"
    print(f"{model_dir(recipe.dataset)}: epoch {epoch}; MLflow run {run_dir.name} {where}")


if __name__ == "__main__":
    run_command(main)
