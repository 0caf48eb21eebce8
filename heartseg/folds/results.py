"""The results of a cross-validation: out-of-fold metrics, and the ensemble."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from heartseg.data.privacy import case_names
from heartseg.datasets import DATASETS
from heartseg.evaluation.evaluate import evaluate_model, prediction_pairs, predictor, summarise
from heartseg.evaluation.register import register_model
from heartseg.folds.job import Job
from heartseg.paths import MODEL, prepared_path, write_text
from heartseg.text import csv_text

if TYPE_CHECKING:
    from heartseg.evaluation.cases import MeasuredCases, Predict
    from heartseg.models.inference import PackagedModel
    from heartseg.models.tta import Tta


def evaluate_folds(job: Job, rows: pd.DataFrame) -> dict[str, Any]:
    """Segment each patient with the network that was not trained on it, and report the metrics.

    Args:
        job: The cross-validation.
        rows: Rows of the prepared dataset of all patients in the folds.

    Returns:
        The test-time augmentation and post-processing that were selected on these predictions.
    """
    import torch

    from heartseg.evaluation.cases import join_measured, measure_cases
    from heartseg.evaluation.postprocessing import select_postprocessing
    from heartseg.evaluation.summary import headline
    from heartseg.models.trained import load_trained
    from heartseg.models.tta import views_of

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    channels = job.recipe.model.in_channels
    members: list[tuple[PackagedModel, Predict, pd.DataFrame]] = []
    facts: list[dict[str, Any]] = []
    for fold in range(job.folds):
        model, _, training = load_trained(job.fold_dir(fold) / MODEL)
        frames = rows[rows["patient"].isin(job.patients(fold))]
        members.append((model.to(device), predictor(model, channels, device), frames))
        facts.append(training.model_dump(include={"fold", "epoch", "mlflow_run_id"}))

    def pairs(tta: Tta) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for model, predict, frames in members:
            yield from prediction_pairs(model, job.dataset, predict, frames)(tta)

    decided = select_postprocessing(job.params.evaluate, job.dataset, pairs, of="out-of-fold")
    parts: list[MeasuredCases] = []
    for fact, (model, predict, frames) in zip(facts, members, strict=True):
        model.set_tta(views_of(job.dataset, decided["tta"]["chosen"]))
        model.largest_component = decided["postprocess"]["chosen"] == "largest_component"
        parts.append(measure_cases(frames, job.dataset, predict, {}))
        fact |= {"patients": int(frames["patient"].nunique()), "images": len(frames)}
        fact["metrics"] = headline(summarise(parts[-1], job.dataset, job.params), job.dataset)
    whole = join_measured(parts, job.dataset)
    whole.cases.insert(1, "fold", whole.cases["patient"].map(job.assigned))
    _report(job, facts, whole, decided)
    return decided


def _report(
    job: Job, facts: list[dict[str, Any]], whole: MeasuredCases, decided: dict[str, Any]
) -> None:
    """Leave out_of_fold.csv and crossval.json, also in MLflow, and tell the folds' metrics."""
    from heartseg.evaluation.summary import headline, json_safe
    from heartseg.tracking.client import log_evaluation

    table = pd.DataFrame([fact["metrics"] for fact in facts], dtype=float)
    mean, sd = table.mean().to_dict(), table.std(ddof=1).to_dict()
    overall = summarise(whole, job.dataset, job.params)
    together = headline(overall, job.dataset)
    found = {
        "recipe": job.name,
        **decided,
        "folds": [json_safe(fact) for fact in facts],
        "mean": json_safe(mean),
        "sd": json_safe(sd),
        "out_of_fold": overall,
    }
    files = [job.results / "crossval.json", job.results / "out_of_fold.csv"]
    write_text(files[0], json.dumps(found, indent=1, allow_nan=False) + "\n")
    write_text(files[1], csv_text(whole.cases))
    for fact in facts:
        values = {f"out_of_fold/{key}": value for key, value in fact["metrics"].items()}
        log_evaluation(job.client, fact["mlflow_run_id"], values, [])
    values = {
        f"{part}/{key}": value
        # The mean over the folds is left out: each fold has a run of its own.
        for part, numbers in (("out_of_fold", together), ("sd", json_safe(sd)))
        for key, value in numbers.items()
    }
    names = case_names(job.params.privacy, prepared_path(job.dataset))
    with names.shareable(files[1:]) as tables:
        log_evaluation(job.client, job.run_id, values, [files[0], *tables])
    n = overall["n_patients"]
    print(f"{files[0]}: {job.folds} folds, {n} patients, mean ± SD of the folds:")
    for name, value in together.items():
        if value is not None:
            item = DATASETS[job.dataset].headline[name]
            shown = f"{mean[name]:9.{item.decimals}f} ± {sd[name]:.{item.decimals}f}"
            print(f"  {name:<11} {shown:<20} all patients {value:<9.{item.decimals}f} {item.text}")


def register_ensemble(job: Job, decided: dict[str, Any]) -> None:
    """Save the folds' networks as one model, evaluate it on held-out patients and register it.

    Args:
        job: The cross-validation.
        decided: Result of `evaluate_folds`.
    """
    from safetensors.torch import load_file

    from heartseg.models.trained import (
        WEIGHTS,
        FoldOrigin,
        TrainingRecord,
        read_training,
        save_ensemble,
    )
    from heartseg.tracking.faults import without_password

    folders = [job.fold_dir(fold) / MODEL for fold in range(job.folds)]
    trainings = [read_training(folder) for folder in folders]
    name = f"{job.name}/{job.folds}folds"
    training = TrainingRecord(
        recipe_name=name,
        recipe=job.recipe.model_dump(mode="json"),
        data_digest=job.digest,
        tracking_uri=without_password(job.uri),
        experiment=job.experiment,
        mlflow_run_id=job.run_id,
        tags=job.tags | {"heartseg.recipe": name},
        epoch=", ".join(str(own.epoch) for own in trainings),
        folds=[
            FoldOrigin.model_validate(own.model_dump(include={"fold", "epoch", "mlflow_run_id"}))
            for own in trainings
        ],
        decided=decided,
    )
    save_ensemble(job.results / MODEL, [load_file(f / WEIGHTS) for f in folders], training)
    evaluate_model(name, job.dataset, job.results, job.params)
    register_model(name, job.dataset, job.results, job.params)
