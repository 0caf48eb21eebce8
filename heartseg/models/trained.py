"""The folder of a trained model, which `train` writes and `evaluate` reads."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save

from heartseg.config.recipe import Recipe
from heartseg.errors import InputError, one_line, writing
from heartseg.models import build_network
from heartseg.models.inference import PackagedModel, copy_weights
from heartseg.models.outputs import Ensemble, output_channels, uses_sigmoids

WEIGHTS = "weights.safetensors"
TRAINING = "training.json"
ENSEMBLE_PREFIX = "networks."
"""Prefix of the weights' names in an ensemble. The index of the network follows."""


def save_trained(folder: Path, weights: dict[str, torch.Tensor], training: dict[str, Any]) -> None:
    """Write weights.safetensors and training.json. The folder is replaced atomically.

    Args:
        folder: Folder to write. An existing one is replaced.
        weights: State dict of the network.
        training: Recipe, run id, data digest and lineage, JSON-serialisable.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    with writing(folder):
        temporary.mkdir(parents=True)
        # Not save_file, because it hides a full disk and makes the file unreadable for others.
        (temporary / WEIGHTS).write_bytes(save(copy_weights(weights)))
        (temporary / TRAINING).write_text(json.dumps(training, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)


def save_ensemble(
    folder: Path, members: Sequence[dict[str, torch.Tensor]], training: dict[str, Any]
) -> None:
    """Write an ensemble in the format of `save_trained`.

    Args:
        folder: Folder to write. An existing one is replaced.
        members: State dicts of networks of the same recipe.
        training: Content of training.json without "members", their number.
    """
    weights = {
        f"{ENSEMBLE_PREFIX}{index}.{key}": weight
        for index, member in enumerate(members)
        for key, weight in member.items()
    }
    save_trained(folder, weights, training | {"members": len(members)})


def load_trained(folder: Path) -> tuple[PackagedModel, Recipe, dict[str, Any]]:
    """Read a trained model or ensemble.

    Returns:
        The model on the CPU in evaluation mode, its recipe, and the content of training.json.

    Raises:
        InputError: The folder is missing, its files are damaged, or recipe and weights do not fit.
    """
    try:
        training = json.loads((folder / TRAINING).read_text(encoding="utf-8"))
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
        model, recipe = build_model(training["recipe"], weights)
    except InputError as error:
        commit = training.get("tags", {}).get("git.commit", "unknown")
        raise InputError(
            f"{folder}: {error}. Train the model again, or use the version that trained it: commit "
            f"{commit}"
        ) from None
    return model, recipe, training


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
