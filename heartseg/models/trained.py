"""The folder of a trained model, which `train` writes and `evaluate` reads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import load_file, save

from heartseg.config.recipe import Recipe
from heartseg.errors import InputError, catch_full_disk, one_line
from heartseg.models import build_network
from heartseg.models.inference import PackagedModel, copy_weights
from heartseg.models.outputs import Ensemble, output_channels, uses_sigmoids

WEIGHTS = "weights.safetensors"
TRAINING = "training.json"
ENSEMBLE_PREFIX = "networks."
"""Prefix of the weights' names in an ensemble. The index of the network follows."""


class FoldOrigin(BaseModel):
    """The training of one fold of a cross-validation."""

    fold: int
    """Index of the fold, from 0."""
    epoch: int
    """Epoch of the weights."""
    mlflow_run_id: str
    """Run of the training."""


class SweepOrigin(BaseModel):
    """The sweep that found a model, and the values of its trial."""

    run_id: str
    """MLflow run of the sweep."""
    trial: int
    """Number of the trial."""
    values: dict[str, Any]
    """Sampled values by field of the recipe."""


class TrainingRecord(BaseModel):
    """training.json: how a model was trained, from which data, and by which code."""

    model_config = ConfigDict(frozen=True)

    recipe_name: str
    """Name of the recipe, or of a sweep's trial or a cross-validation."""
    recipe: dict[str, Any]
    """The whole recipe, as `Recipe.model_dump(mode="json")` returns it."""
    data_digest: str
    """MD5 of the prepared dataset."""
    tracking_uri: str = ""
    """URI of the MLflow tracking server."""
    experiment: str
    """MLflow experiment."""
    mlflow_run_id: str | None = None
    """Run of the training; None if the MLflow server was not available."""
    tags: dict[str, str] = {}
    """Tags of the run, with the provenance (git.*, dvc.*)."""
    records: dict[str, str] = {}
    """Files that are stored with the run, such as the patch of uncommitted changes."""
    epoch: int | str = 0
    """Epoch of the weights; for an ensemble, those of its members."""
    fold: int | None = None
    """Index of the fold that was used for validation, in a cross-validation."""
    members: int = 1
    """Number of networks."""
    folds: list[FoldOrigin] = []
    """Trainings of an ensemble's networks."""
    sweep: SweepOrigin | None = None
    """Origin of the best trial of a sweep."""
    decided: dict[str, Any] | None = None
    """Test-time augmentation and post-processing, if they were selected before the evaluation."""


def save_trained(folder: Path, weights: dict[str, torch.Tensor], training: TrainingRecord) -> None:
    """Write weights.safetensors and training.json. The folder is replaced atomically.

    Args:
        folder: Folder to write. An existing one is replaced.
        weights: State dict of the network.
        training: Content of training.json.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    with catch_full_disk(folder):
        temporary.mkdir(parents=True)
        # Not save_file, because it hides a full disk and makes the file unreadable for others.
        (temporary / WEIGHTS).write_bytes(save(copy_weights(weights)))
        text = training.model_dump_json(indent=1, exclude_defaults=True)
        (temporary / TRAINING).write_text(text + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)


def save_ensemble(
    folder: Path, members: Sequence[dict[str, torch.Tensor]], training: TrainingRecord
) -> None:
    """Write an ensemble in the format of `save_trained`.

    Args:
        folder: Folder to write. An existing one is replaced.
        members: State dicts of networks of the same recipe.
        training: Content of training.json; `members` is set.
    """
    weights = {
        f"{ENSEMBLE_PREFIX}{index}.{key}": weight
        for index, member in enumerate(members)
        for key, weight in member.items()
    }
    save_trained(folder, weights, training.model_copy(update={"members": len(members)}))


def load_trained(folder: Path) -> tuple[PackagedModel, Recipe, TrainingRecord]:
    """Read a trained model or ensemble.

    Returns:
        The model on the CPU in evaluation mode, its recipe, and the content of training.json.

    Raises:
        InputError: The folder is missing, its files are damaged, or recipe and weights do not fit.
    """
    try:
        training = read_training(folder)
        weights = load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        raise InputError(
            f"{error.filename or folder} does not exist; train the model first"
        ) from None
    except Exception as error:
        raise InputError(
            f"{folder} contains no readable model ({error}); train it again"
        ) from error
    try:
        model, recipe = build_model(training.recipe, weights)
    except InputError as error:
        commit = training.tags.get("git.commit", "unknown")
        raise InputError(
            f"{folder}: {error}. Train the model again, or use the version that trained it: commit "
            f"{commit}"
        ) from None
    return model, recipe, training


def read_training(folder: Path) -> TrainingRecord:
    """Read training.json of a model's folder.

    Raises:
        FileNotFoundError: The folder does not contain the file.
        ValueError: The file is damaged.
    """
    return TrainingRecord.model_validate_json((folder / TRAINING).read_text(encoding="utf-8"))


def build_model(
    values: dict[str, Any], weights: dict[str, torch.Tensor]
) -> tuple[PackagedModel, Recipe]:
    """Build a model from a recipe and weights.

    Args:
        values: Content of the recipe.
        weights: State dict of the network, or of an ensemble with the names of `save_ensemble`.

    Returns:
        The model on the CPU in evaluation mode, without post-processing, and its validated recipe.

    Raises:
        InputError: Recipe and weights do not fit each other or this version of heartseg.
    """
    members = {key.split(".")[1] for key in weights if key.startswith(ENSEMBLE_PREFIX)}
    try:
        recipe = Recipe.model_validate(values)
        _check_shapes(recipe, weights, members)
        networks = [
            build_network(recipe.model, output_channels(recipe), pretrained=False)
            for _ in range(len(members) or 1)
        ]
        sigmoids = uses_sigmoids(recipe)
        network = Ensemble(networks, sigmoids) if members else networks[0]
        network.load_state_dict(weights)
    except (ValidationError, RuntimeError) as error:
        raise InputError(
            f"its recipe or weights do not fit this version of heartseg ({one_line(error)})"
        ) from None
    return PackagedModel(network, recipe.input_size, sigmoids=sigmoids).eval(), recipe


def _check_shapes(
    recipe: Recipe, weights: dict[str, torch.Tensor], members: Collection[str]
) -> None:
    """Compare names and shapes of the weights with the recipe's network, without allocating it.

    Raises:
        InputError: A tensor is missing, unexpected, or has another shape.
    """
    with torch.device("meta"):  # shapes without memory
        network = build_network(recipe.model, output_channels(recipe), pretrained=False)
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    expected = set(shapes.items())
    if members and len(weights) == len(shapes) * len(members):
        expected = {
            (f"{ENSEMBLE_PREFIX}{member}.{key}", shape)
            for member in members
            for key, shape in expected
        }
    found = {(key, tuple(value.shape)) for key, value in weights.items()}
    if different := sorted(expected ^ found):
        raise InputError(
            "its weights do not fit its recipe in this version of heartseg (first difference: "
            f"{different[0][0]})"
        )
