"""The training of the folds, on the same path as `heartseg train`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from heartseg.config.params import Train
from heartseg.config.recipe import Recipe
from heartseg.data.privacy import case_names
from heartseg.paths import MODEL, prepared_path
from heartseg.training.run_dir import (
    clear_checkpoints,
    read_state,
    stop_on_signals,
    update_state,
)

if TYPE_CHECKING:
    from heartseg.data.resident import Resident
    from heartseg.folds.job import Job

TrainFold = Callable[[Recipe, Train, "dict[str, Resident]", Path], Path]


def train_folds(job: Job, *, in_process: bool) -> None:
    """Train the unfinished folds one after another, each on the whole cluster.

    Args:
        job: The cross-validation.
        in_process: Whether to train in this process, without Ray.
    """
    pending = [k for k in range(job.folds) if not read_state(job.fold_dir(k)).get("finished")]
    if not pending:
        return
    from heartseg.data.resident import load_resident

    images = load_resident(prepared_path(job.dataset), None, job.recipe.input_size)
    names = case_names(job.params.privacy, prepared_path(job.dataset))
    images = images.rename_cases(names.shown)
    if in_process:
        from heartseg.training.in_process import train_in_process

        for fold in pending:
            _train_fold(job, fold, images, train_in_process)
        return
    from heartseg.cluster import train as ray_train

    try:
        ray_train.start_ray(job.folder / "ray.log")
        for fold in pending:
            _train_fold(job, fold, images, ray_train.train_on_cluster)
    finally:
        ray_train.shutdown()


def _train_fold(job: Job, fold: int, images: Resident, train: TrainFold) -> None:
    """Train on the other folds and save the network in the folder of this fold."""
    from heartseg.models.trained import TrainingRecord, save_trained
    from heartseg.tracking.tracker import RunTracker
    from heartseg.training.checkpoint import load_checkpoint, selected_weights
    from heartseg.training.display import Display

    folder, params = job.fold_dir(fold), job.params
    folder.mkdir(exist_ok=True)
    validating = job.patients(fold)
    data = {
        "train": images.select_patients(job.assigned.keys() - validating),
        "val": images.select_patients(validating),
    }
    title = f"{job.folder.name} fold {fold}"
    run_id = job.open_run(folder, title, {"heartseg.fold": str(fold)})
    monitored = params.tracking.system_metrics
    tracker = RunTracker(run_id, folder, job.uri, job.dataset, system_metrics=monitored)
    display = Display(folder, f"{job.name} fold {fold + 1}/{job.folds}", job.recipe.epochs)
    with stop_on_signals(folder), tracker, display:
        checkpoint = train(job.recipe, params.train, data, folder)
    epoch, weights = selected_weights(load_checkpoint(checkpoint))
    training = TrainingRecord(
        recipe_name=job.name,
        recipe=job.recipe.model_dump(mode="json"),
        data_digest=job.digest,
        experiment=job.experiment,
        mlflow_run_id=run_id,
        epoch=epoch,
        fold=fold,
    )
    save_trained(folder / MODEL, weights, training)
    # While metrics wait for the server, the fold counts as unfinished: the same command sends them.
    update_state(folder, finished=tracker.arrived)
    clear_checkpoints(folder, keep=1)
