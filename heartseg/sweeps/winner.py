"""The best trial of a sweep as a model: its evaluation and registration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from heartseg.errors import InputError
from heartseg.paths import MODEL
from heartseg.training.run_dir import read_state

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from heartseg.sweeps.job import Job
    from heartseg.tracking.sweep_tracker import SweepTracker


def register_winner(job: Job, best: FrozenTrial, tracker: SweepTracker, folder: Path) -> None:
    """Evaluate and register the model of a trial, as the stages of dvc.yaml do.

    The sweep has selected the trial on the validation split. The model is evaluated on the test
    split; if it is evaluated on the validation split, the results say that it was selected there.

    Args:
        job: The sweep.
        best: Trial to register.
        tracker: Tracker with the MLflow run of the sweep.
        folder: Folder of the sweep.

    Raises:
        InputError: If the trial has no MLflow run, because the store does not answer.
    """
    from heartseg.evaluation.evaluate import evaluate_model
    from heartseg.evaluation.register import register_model
    from heartseg.models.trained import SweepOrigin, TrainingRecord, save_trained
    from heartseg.sweeps.folder import trial_dir
    from heartseg.tracking.faults import without_password
    from heartseg.training.checkpoint import load_checkpoint, selected_weights
    from heartseg.training.journal import write_history
    from heartseg.training.machine import machine_tags

    run = tracker.sweep
    run_dir = trial_dir(folder, best.number)
    run_id = read_state(run_dir).get("mlflow_run_id")
    if run_id is None:
        raise InputError(
            f"trial {best.number} has no MLflow run, because {without_password(tracker.uri)} has "
            f"not answered; run `heartseg sweep {job.path}` again when it does"
        )
    epoch, weights = selected_weights(load_checkpoint(run_dir))
    name = run.recipe_name(best.number)
    training = TrainingRecord(
        recipe_name=name,
        recipe=job.sweep.recipe_for(best.params, job.params).model_dump(mode="json"),
        data_digest=run.data_digest,
        tracking_uri=without_password(tracker.uri),
        experiment=run.experiment,
        mlflow_run_id=run_id,
        tags=run.tags | machine_tags(run_dir) | {"heartseg.recipe": name},
        records=run.records,
        epoch=epoch,
        sweep=SweepOrigin(run_id=run.run_id, trial=best.number, values=best.params),
    )
    write_history(run_dir, job.results / "history.csv")
    save_trained(job.results / MODEL, weights, training)
    evaluate_model(name, job.dataset, job.results, job.params)
    register_model(name, job.dataset, job.results, job.params)
