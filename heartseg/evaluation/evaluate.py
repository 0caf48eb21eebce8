"""Evaluate a trained model on the held-out patients: tables, numbers and figures."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from heartseg.config.params import Params
from heartseg.data.prepared import decode_image, decode_png, file_digest, read_prepared
from heartseg.data.privacy import CaseNames, case_names
from heartseg.datasets import DATASETS
from heartseg.errors import InputError, catch_full_disk
from heartseg.paths import MODEL, prepared_path, write_text
from heartseg.text import csv_text

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from heartseg.evaluation.cases import MeasuredCases, Predict
    from heartseg.evaluation.postprocessing import PredictionPairs
    from heartseg.models.inference import PackagedModel
    from heartseg.models.trained import TrainingRecord
    from heartseg.models.tta import Tta


def evaluate_model(name: str, dataset: str, results: Path, params: Params) -> None:
    """Evaluate the model in `results`/model and write tables, metrics and figures to `results`.

    Args:
        name: Name of the recipe, or of the sweep's trial, that must have trained the model.
        dataset: Name of the dataset.
        results: Folder of the results.
        params: Content of params.yaml.

    Raises:
        InputError: If the model does not exist, or was trained by another recipe or on other data.
    """
    prepared = prepared_path(dataset)
    model_folder = results / MODEL
    split, held_out = held_out_rows(prepared, params.evaluate.split)

    import torch

    from heartseg.evaluation.cases import measure_cases
    from heartseg.evaluation.charts import charts, overlays, report_text
    from heartseg.evaluation.postprocessing import select_postprocessing
    from heartseg.evaluation.quality import measure_windows, summarise_quality
    from heartseg.evaluation.summary import headline, json_safe, round_headline
    from heartseg.metrics.plausibility import area_ranges
    from heartseg.models.trained import WEIGHTS, load_trained
    from heartseg.models.tta import views_of
    from heartseg.report.figures import training_curves
    from heartseg.report.quality import quality_figures
    from heartseg.tracking.offline_buffer import add_pending, connect_or_buffer
    from heartseg.tracking.provenance import git_tags

    model, recipe, training = load_trained(model_folder)
    digest = file_digest(prepared)
    if training.recipe_name != name:
        raise InputError(
            f"{model_folder} was trained by recipe {training.recipe_name}, not {name}; "
            f"run `heartseg train {name}` first"
        )
    if training.data_digest != digest:
        raise InputError(
            f"{prepared} is not the dataset that {model_folder} was trained on, so its training "
            f"patients may be among the held-out ones; run `heartseg train {name}` first"
        )
    # Connect first, so that an unreachable store is reported before the long computation.
    client = connect_or_buffer(params.tracking, f"the evaluation in {results}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    predict = predictor(model.to(device), recipe.model.in_channels, device)
    # An ensemble was trained on the validation patients, so its selection is in training.json.
    decided = training.decided
    if decided is None:
        pairs = prediction_pairs(model, dataset, predict, read_prepared(prepared, "val"))
        decided = select_postprocessing(params.evaluate, dataset, pairs)
    model.set_tta(views_of(dataset, decided["tta"]["chosen"]))
    model.largest_component = decided["postprocess"]["chosen"] == "largest_component"
    names = case_names(params.privacy, prepared)
    figures: dict[str, Figure]
    if DATASETS[dataset].classifies:
        cases, clinical = measure_windows(held_out, model, recipe.model.in_channels, device)
        summary = json_safe(summarise_quality(cases, params.evaluate))
        figures = quality_figures(held_out, cases, names)
    else:
        ranges = area_ranges(read_prepared(prepared, "train")) if DATASETS[dataset].apical else {}
        measured = measure_cases(held_out, dataset, predict, ranges)
        cases, clinical = measured.cases, measured.clinical
        summary = summarise(measured, dataset, params)
        figures = overlays(held_out, cases, dataset, predict, names)
        figures |= charts(measured, dataset, split)
    if (history := results / "history.csv").exists():
        figures["training_curves"] = training_curves(pd.read_csv(history))
    selected = recipe.select == "best" or recipe.early_stopping > 0 or training.sweep is not None
    selected |= any(choice["chosen_on"] == "val" for choice in decided.values())
    report = {
        "evaluated_on": split,
        "selected_on_it": split == "val" and selected,
        **decided,
        "networks": training.members,
        "views": len(model.transforms),
        "data_digest": digest,
        "weights_md5": file_digest(model_folder / WEIGHTS),
        **summary,
    }

    _write_figures(results / "figures", figures)
    write_text(results / "cases.csv", csv_text(cases))
    write_text(results / "clinical.csv", csv_text(clinical))
    write_text(results / "report.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
    shown = round_headline(headline(report, dataset), dataset)
    write_text(results / "metrics.json", json.dumps(shown, indent=1) + "\n")
    if client is None:
        add_pending("evaluate", name, dataset, results, report["weights_md5"])
    else:
        send_evaluation(client, dataset, training, report, git_tags(Path.cwd()), results, names)
    print(report_text(report, dataset, results))


def send_evaluation(
    client: Any,
    dataset: str,
    training: TrainingRecord,
    report: dict[str, Any],
    git: dict[str, str],
    results: Path,
    names: CaseNames,
) -> None:
    """Add the evaluation in `results` to the training's MLflow run.

    Args:
        client: Client from `heartseg.tracking.client.connect`.
        dataset: Name of the dataset.
        training: Record of the training.
        report: Content of report.json.
        git: Tags from `heartseg.tracking.provenance.git_tags` at the time of the evaluation.
        results: Folder that `evaluate_model` has written.
        names: Conversion of names of cases and patients into the names that may be shown.

    Raises:
        InputError: If the store does not answer.
    """
    from heartseg.evaluation.summary import headline
    from heartseg.tracking.client import find_training_run, log_evaluation
    from heartseg.tracking.descriptions import run_note

    if (run_id := find_training_run(client, training)) is not None:
        with names.shareable([results / "cases.csv", results / "clinical.csv"]) as tables:
            files = [results / "report.json", *tables, results / "figures"]
            log_evaluation(
                client,
                run_id,
                {f"test/{key}": value for key, value in headline(report, dataset).items()},
                files,
                tags={
                    "eval.split": report["evaluated_on"],
                    "eval.weights_md5": report["weights_md5"],
                    "eval.git.commit": git["git.commit"],
                },
                note=run_note(report),
            )
    else:
        print(f"the training's run is not in this MLflow store; the evaluation stays in {results}")


def held_out_rows(prepared: Path, wanted: str) -> tuple[str, pd.DataFrame]:
    """Return the split to evaluate and its rows.

    Args:
        prepared: Parquet file of the prepared dataset.
        wanted: Name of the split. If it is empty, "val" is used instead.

    Raises:
        InputError: If both splits are empty.
    """
    for split in dict.fromkeys((wanted, "val")):
        rows = read_prepared(prepared, split)
        if len(rows):
            if split != wanted:
                print(f"{prepared} has no {wanted} patients; evaluating on {split}")
            return split, rows
    raise InputError(f"{prepared} has neither {wanted} nor val patients; change its split")


def predictor(model: PackagedModel, channels: int, device: torch.device) -> Predict:
    """Return a function from a uint8 image (C, H, W) to its label map and class probabilities.

    Args:
        model: Model on the device.
        channels: Number of input channels of its network. C is `channels`, or 1 to repeat the
            image in all channels.
        device: Device of the model.
    """
    import torch

    from heartseg.models.outputs import probabilities

    def predict(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        batch = torch.from_numpy(image)[None].expand(-1, channels, -1, -1)
        with torch.inference_mode():
            logits = model.logits(batch.to(device))
            labels, found = model.labels(logits), probabilities(logits, model.sigmoids)
        return labels[0].cpu().numpy(), found[0].cpu().numpy()

    return predict


def prediction_pairs(
    model: PackagedModel, dataset: str, predict: Predict, frames: pd.DataFrame
) -> PredictionPairs:
    """Return a function from a kind of test-time augmentation to pairs of prediction and reference.

    `heartseg.evaluation.postprocessing.select_postprocessing` takes it.

    Args:
        model: Model; its test-time augmentation is set before each pass over the frames.
        dataset: Name of the dataset.
        predict: Prediction with `model`, from `predictor`.
        frames: Rows of the prepared dataset.
    """
    from heartseg.models.tta import views_of

    def pairs(tta: Tta) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        model.set_tta(views_of(dataset, tta))
        for frame in frames.to_dict("records"):
            labels, _ = predict(decode_image(frame["image"], frame["height"]))
            yield labels, decode_png(frame["mask"])

    return pairs


def summarise(measured: MeasuredCases, dataset: str, params: Params) -> dict[str, Any]:
    """Compute the part of report.json about the cases."""
    from heartseg.evaluation.summary import (
        json_safe,
        summarise_camus,
        summarise_mmode,
        uncertainty_and_dice,
    )
    from heartseg.metrics.plausibility import summarise_plausibility, summarise_volumes
    from heartseg.metrics.uncertainty import summarise_uncertainty

    cases = measured.cases
    certainty = {
        "uncertainty": json_safe(summarise_uncertainty(uncertainty_and_dice(cases, dataset))),
        "calibration": json_safe(measured.calibration.summary()),
    }
    if not DATASETS[dataset].apical:
        return summarise_mmode(cases, measured.clinical, params.evaluate) | certainty
    plausibility = json_safe(summarise_plausibility(cases, params.evaluate))
    plausibility["volumes"] = summarise_volumes(measured.clinical)
    summary = summarise_camus(cases, measured.clinical, params.evaluate)
    return summary | {"plausibility": plausibility} | certainty


# --- writing ------------------------------------------------------------------------------


def _write_figures(folder: Path, figures: dict[str, Figure]) -> None:
    """Replace the folder, so that it has no figure of an earlier model."""
    from heartseg.report.figures import save

    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        with catch_full_disk(folder):
            for name, figure in figures.items():
                save(figure, temporary / f"{name}.png")
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
