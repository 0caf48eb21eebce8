"""A training together with its images and its run in MLflow."""

from __future__ import annotations

import contextlib
import shutil
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from heartseg.config.params import Params, Train
from heartseg.config.recipe import Recipe
from heartseg.data.prepared import read_metadata
from heartseg.data.privacy import case_names
from heartseg.data.resident import Resident, load_resident
from heartseg.errors import InputError, catch_full_disk
from heartseg.paths import model_dir, results_dir
from heartseg.tracking.artifacts import collect_lineage_files, write_lineage_files
from heartseg.tracking.client import TRAINING_KEY, connect, portable_uri, tracking_uri
from heartseg.tracking.faults import store_errors, writing_to_store
from heartseg.tracking.provenance import lineage_tags, started_from
from heartseg.tracking.sender import FILES, FILES_SENT, ArtifactSender
from heartseg.tracking.tracker import RunTracker, open_training_run
from heartseg.training.run_dir import clear_checkpoints, code_digest, read_state, update_state

if TYPE_CHECKING:
    from heartseg.models.trained import TrainingRecord


@dataclass(frozen=True)
class TrackedTraining:
    """Everything that a training needs.

    Attributes:
        recipe: Recipe to train.
        train_config: Section `train` of params.yaml.
        data: Images by split, "train" and "val".
        run_dir: Run folder.
        tracker: Sender of the training's progress to MLflow.
        training: Record of the training, without epoch and MLflow run.
    """

    recipe: Recipe
    train_config: Train
    data: dict[str, Resident]
    run_dir: Path
    tracker: RunTracker
    training: TrainingRecord

    def run(self, train: Callable[[Recipe, Train, dict[str, Resident], Path], Path]) -> None:
        """Train, and write the model to results/DATASET/model.

        Args:
            train: Function that trains and returns the folder of the last checkpoint.
        """
        from heartseg.models.trained import save_trained
        from heartseg.training.checkpoint import load_checkpoint, selected_weights
        from heartseg.training.display import Display
        from heartseg.training.journal import write_history
        from heartseg.training.machine import machine_tags

        recipe, run_dir = self.recipe, self.run_dir
        with self.tracker, Display(run_dir, self.training.recipe_name, recipe.epochs):
            checkpoint = train(recipe, self.train_config, self.data, run_dir)
        epoch, weights = selected_weights(load_checkpoint(checkpoint))
        write_history(run_dir, results_dir(recipe.dataset) / "history.csv")
        run_id = read_state(run_dir).get("mlflow_run_id")  # a buffered run may have an id by now
        tags = self.training.tags | machine_tags(run_dir)
        result = {"mlflow_run_id": run_id, "tags": tags, "epoch": epoch}
        training = self.training.model_copy(update=result)
        save_trained(model_dir(recipe.dataset), weights, training)
        # Not finished if records still wait for the server: the same command then sends them.
        update_state(run_dir, finished=self.tracker.arrived)
        clear_checkpoints(run_dir, keep=1)
        run = f"({run_id})" if run_id else "waits for `heartseg sync`"
        print(f"{model_dir(recipe.dataset)}: epoch {epoch}; MLflow run {run_dir.name} {run}")


def open_training(
    name: str, params: Params, prepared: Path, digest: str, run_dir: Path
) -> TrackedTraining:
    """Load the images, and open a new run in MLflow or the run that is continued.

    Args:
        name: Name of the recipe.
        params: Content of params.yaml.
        prepared: Parquet file of the prepared dataset.
        digest: MD5 of that file.
        run_dir: Run folder.

    Raises:
        InputError: A split has no images, or MLflow does not answer and tracking.offline is fail.
    """
    from heartseg.models.trained import TrainingRecord

    recipe = params.recipe(name)
    data = {split: load_resident(prepared, split, recipe.input_size) for split in ("train", "val")}
    for split, images in data.items():
        if not len(images):
            raise InputError(
                f"{prepared} has no {split} images; change datasets.{recipe.dataset}.split"
            )
    # Renamed here, so that workers, journal and the figures in MLflow never see the real names.
    names = case_names(params.privacy, prepared)
    data["val"] = data["val"].rename_cases(names.shown)
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
        "texts": {},  # ArtifactSender sends the files
        "dataset": recipe.dataset,
        "data_source": read_metadata(prepared)["source"],
        "data_digest": digest,
        "tags": tags,
    }
    shown = portable_uri(uri, Path.cwd())
    # KILLED is the status that `heartseg sync` reports if this process ends without a word.
    update_state(run_dir, opening=opening, tracking_uri=shown, status="KILLED", sent=False)
    records = collect_lineage_files(Path.cwd())
    with catch_full_disk(run_dir / FILES):
        shutil.rmtree(run_dir / FILES, ignore_errors=True)
        (run_dir / FILES_SENT).unlink(missing_ok=True)
        write_lineage_files(run_dir / FILES, records, prepared, names)
        text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
        (run_dir / FILES / "recipe.yaml").write_text(text, encoding="utf-8")
    run_id = _open_run(uri, run_dir, recipe.dataset, offline=params.tracking.offline)
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
    return TrackedTraining(recipe, params.train, data, run_dir, tracker, training)


def _open_run(uri: str, run_dir: Path, dataset: str, *, offline: str) -> str | None:
    """Open the run in MLflow and send its first files.

    Returns:
        The run's id; None if MLflow does not answer and `offline` is "buffer".
    """
    run_id = None
    try:
        client = connect(uri)
        with writing_to_store(client, "the run"):
            run_id = open_training_run(client, run_dir).run_id
            ArtifactSender(client, run_id, run_dir, dataset).send()
    except InputError as error:
        if offline == "fail":
            if run_id is not None:
                with contextlib.suppress(*store_errors()):  # the store may not answer here either
                    client.set_terminated(run_id, "FAILED")
            raise
        print(f"{error}; training without it (tracking.offline: buffer)", file=sys.stderr)
    except KeyboardInterrupt:
        if run_id is not None:
            client.set_terminated(run_id, "KILLED")
        raise
    return run_id
