"""A trained model between the stages: weights and what made them, in one folder."""

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
from heartseg.models.inference import PackagedModel, unshared
from heartseg.models.outputs import Ensemble, one_vs_rest, output_channels

WEIGHTS = "weights.safetensors"
TRAINING = "training.json"
MEMBER = "networks."
"""Beginning of the names of an ensemble's weights; the member's number follows."""


class FoldOrigin(BaseModel):
    """The training of one fold of a cross-validation."""

    fold: int
    epoch: int
    mlflow_run_id: str


class SweepOrigin(BaseModel):
    """The sweep that found a model, and the values of its trial."""

    run_id: str
    trial: int
    values: dict[str, Any]


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
    experiment: str
    """MLflow experiment."""
    mlflow_run_id: str | None = None
    """Run of the training; None if the MLflow server was not available."""
    tags: dict[str, str] = {}
    """Tags of the run, with the provenance (git.*, dvc.*)."""
    records: dict[str, str] = {}
    """Files that the run keeps, such as the patch of uncommitted changes."""
    epoch: int | str = 0
    """Epoch of the weights; for an ensemble, those of its members."""
    fold: int | None = None
    """Number of the fold that validated, in a cross-validation."""
    members: int = 1
    """Number of networks."""
    folds: list[FoldOrigin] = []
    """Trainings of an ensemble's networks."""
    sweep: SweepOrigin | None = None
    decided: dict[str, Any] | None = None
    """Test-time augmentation and post-processing, if they were selected before the evaluation."""


def save_trained(folder: Path, weights: dict[str, torch.Tensor], training: TrainingRecord) -> None:
    """Write weights.safetensors and training.json; the folder appears whole or not at all.

    Args:
        folder: replaced if it exists.
        weights: the network's state.
        training: Content of training.json.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    with catch_full_disk(folder):
        temporary.mkdir(parents=True)
        # Not save_file, which hides that a disk is full and lets nobody else read the file.
        (temporary / WEIGHTS).write_bytes(save(unshared(weights)))
        text = training.model_dump_json(indent=1, exclude_defaults=True)
        (temporary / TRAINING).write_text(text + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)


def save_ensemble(
    folder: Path, members: Sequence[dict[str, torch.Tensor]], training: TrainingRecord
) -> None:
    """As `save_trained`, for the states of several networks of one recipe."""
    weights = {
        f"{MEMBER}{number}.{key}": weight
        for number, member in enumerate(members)
        for key, weight in member.items()
    }
    save_trained(folder, weights, training.model_copy(update={"members": len(members)}))


def load_trained(folder: Path) -> tuple[PackagedModel, Recipe, TrainingRecord]:
    """The trained model, or ensemble, on the CPU in evaluation mode, its recipe, training.json.

    Raises:
        InputError: the folder is missing or its files do not belong together.
    """
    try:
        training = read_training(folder)
        weights = load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        raise InputError(
            f"{error.filename or folder} does not exist; train the model first"
        ) from None
    except Exception as error:
        raise InputError(f"{folder} holds no readable model ({error}); train it again") from error
    try:
        model, recipe = build_model(training.recipe, weights)
    except InputError as error:
        commit = training.tags.get("git.commit", "unknown")
        raise InputError(
            f"{folder}: {error}. Train it again, or use the version that made it: commit {commit}"
        ) from None
    return model, recipe, training


def read_training(folder: Path) -> TrainingRecord:
    """Read training.json of a model's folder.

    Raises:
        FileNotFoundError: The folder has none.
        ValueError: It is damaged.
    """
    return TrainingRecord.model_validate_json((folder / TRAINING).read_text(encoding="utf-8"))


def build_model(
    values: dict[str, Any], weights: dict[str, torch.Tensor]
) -> tuple[PackagedModel, Recipe]:
    """Build a network, or an ensemble, from a recipe and its weights.

    Args:
        values: the recipe.
        weights: the network's state; that of several networks as `save_ensemble` names it.

    Returns:
        The model on the CPU in evaluation mode, without post-processing, and its typed recipe.

    Raises:
        InputError: recipe and weights do not fit each other or this version of heartseg.
    """
    members = {key.split(".")[1] for key in weights if key.startswith(MEMBER)}
    try:
        recipe = Recipe.model_validate(values)
        _check_shapes(recipe, weights, members)
        networks = [
            build_network(recipe.model, output_channels(recipe), pretrained=False)
            for _ in range(len(members) or 1)
        ]
        sigmoids = one_vs_rest(recipe)
        network = Ensemble(networks, sigmoids) if members else networks[0]
        network.load_state_dict(weights)
    except (ValidationError, RuntimeError) as error:
        raise InputError(
            f"its recipe or weights are not of this version of heartseg ({one_line(error)})"
        ) from None
    return PackagedModel(network, recipe.input_size, sigmoids=sigmoids).eval(), recipe


def _check_shapes(
    recipe: Recipe, weights: dict[str, torch.Tensor], members: Collection[str]
) -> None:
    """Refuse weights that are not the recipe's, before the network takes memory for its own.

    Raises:
        InputError: names the first tensor that does not fit.
    """
    with torch.device("meta"):  # shapes alone
        network = build_network(recipe.model, output_channels(recipe), pretrained=False)
    of_one = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    wanted = set(of_one.items())
    if members and len(weights) == len(of_one) * len(members):
        wanted = {(f"{MEMBER}{member}.{key}", shape) for member in members for key, shape in wanted}
    found = {(key, tuple(value.shape)) for key, value in weights.items()}
    if odd := sorted(wanted ^ found):
        raise InputError(
            "its weights are not those of its recipe in this version of heartseg (the first that "
            f"does not fit: {odd[0][0]})"
        )
