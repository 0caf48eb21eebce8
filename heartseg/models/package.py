"""A model as people hand it on: weights and what made them, both read as data.

heartseg rebuilds the network from these two and never loads an exported program (`model.pt2`),
which can run code. In the registry the weights lie beside the program; a folder made by
`heartseg pull` has

model.pt2             torch.export program: uint8 (N, C, H, W) -> uint8 label maps (N, H, W)
model.onnx            the same, post-processing included, for any ONNX runtime
weights.safetensors   the network's state alone, by the names of heartseg.models
recipe.yaml           what defines the training
model_card.md         what the model is for, and how good it is
model.json            where it comes from, signature, versions, how far ONNX agrees
SHA256SUMS            of all of these, as `sha256sum --check` reads it
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heartseg.errors import InputError, one_line
from heartseg.paths import CARD

if TYPE_CHECKING:
    from heartseg.models.inference import PackagedModel

PROGRAM = "model.pt2"
ONNX = "model.onnx"
WEIGHTS = "weights.safetensors"
RECIPE = "recipe.yaml"
FACTS = "model.json"
SUMS = "SHA256SUMS"
FILES = (PROGRAM, ONNX, WEIGHTS, RECIPE, CARD, FACTS)
READ = (WEIGHTS, FACTS)
"""The files that heartseg itself reads; the others are for people without heartseg."""

CHOICES = {"postprocess": ("none", "largest_component"), "tta": ("none", "views")}
"""Of a model's metadata, beside the recipe: what happens before and after the network."""
MOST_BYTES = 4 << 30
MOST_BYTES_OF_TEXT = 16 << 20

Predict = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Package:
    """A model that has not been built yet; small enough to be sent to other processes.

    Attributes:
        name: what the user called it.
        weights: the bytes of weights.safetensors.
        metadata: dataset, recipe, postprocess and tta.
    """

    name: str
    weights: bytes
    metadata: dict[str, Any]

    @property
    def weights_sha256(self) -> str:
        """The digest of weights.safetensors."""
        return hashlib.sha256(self.weights).hexdigest()

    def build(self) -> PackagedModel:
        """Build the model with its pre- and post-processing, on the CPU in evaluation mode.

        Raises:
            InputError: recipe and weights do not fit this version of heartseg, or are broken.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        from heartseg.models.trained import build_model
        from heartseg.models.tta import views_of

        try:
            weights = load(self.weights)
        except (SafetensorError, KeyError) as error:  # KeyError: a type that torch does not have
            raise InputError(
                f"{self.name}: its {WEIGHTS} cannot be read ({one_line(error)}). Pull it again."
            ) from None
        try:
            model, recipe = build_model(self.metadata["recipe"], weights)
            if self.metadata["dataset"] != recipe.dataset:
                raise InputError(
                    f"it says that it is for {self.metadata['dataset']!a}, and its recipe for "
                    f"{recipe.dataset}"
                )
        except InputError as error:
            raise InputError(
                f"{self.name}: {error}. Use the version of heartseg that registered it, or train "
                "and register it again."
            ) from None
        for key, known in CHOICES.items():
            if (chosen := self.metadata.get(key, "none")) not in known:
                raise InputError(
                    f"{self.name}: its {key} is {chosen!a}, which this version of heartseg does "
                    "not know. Use the version that registered it."
                )
        model.largest_component = self.metadata.get("postprocess") == "largest_component"
        model.look_at(views_of(self.metadata["dataset"], self.metadata.get("tta", "none")))
        return model

    def load(self) -> Predict:
        """Build the model on the GPU if there is one: uint8 (N, C, H, W) -> uint8 (N, H, W).

        Raises:
            InputError: as `build`.
        """
        import torch

        model, device = self._on_device()

        def predict(images: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return model(torch.from_numpy(images).to(device)).cpu().numpy()

        return predict

    def load_with_probabilities(self) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Build as `load`, to give the class probabilities float32 (N, labels, H, W) as well."""
        import torch

        from heartseg.models.outputs import probabilities

        model, device = self._on_device()

        def predict(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            with torch.inference_mode():
                logits = model.logits(torch.from_numpy(images).to(device))
                labels, found = model.labels(logits), probabilities(logits, model.sigmoids)
            return labels.cpu().numpy(), found.cpu().numpy()

        return predict

    def _on_device(self) -> tuple[PackagedModel, str]:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        return self.build().to(device), device


def read_folder(folder: Path) -> Package:
    """Read a pulled model, if the files that are read are what SHA256SUMS says.

    Raises:
        InputError: names the file that is missing or has changed, and the remedy.
    """
    try:
        lines = _read(folder / SUMS).decode().splitlines()
    except (OSError, UnicodeDecodeError):
        raise InputError(
            f"{folder}: is no pulled model, it has no readable {SUMS}. Make one by `heartseg pull "
            f"MODEL --to {folder}`, or name a model of the registry (models:/NAME@champion)."
        ) from None
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    content = {}
    for name in READ:
        try:
            content[name] = _read(folder / name)
        except OSError as error:
            raise InputError(f"{folder / name}: {error.strerror}. Pull the model again.") from None
        if sums.get(name) != hashlib.sha256(content[name]).hexdigest():
            raise InputError(
                f"{folder / name}: is not the file that was pulled (its SHA-256 is not that of "
                f"{SUMS}). Pull the model again."
            )
    try:
        metadata = json.loads(content[FACTS])["metadata"]
        if not {"dataset", "recipe"} <= metadata.keys():
            raise KeyError("dataset and recipe")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{folder / FACTS}: does not describe a model ({one_line(error)}). Pull it again."
        ) from None
    return Package(str(folder), content[WEIGHTS], metadata)


def _read(path: Path) -> bytes:
    """A file of a folder that somebody else may have made: no device, and not larger than can be.

    Raises:
        OSError: it cannot be read, or is no such file.
    """
    most = MOST_BYTES if path.name == WEIGHTS else MOST_BYTES_OF_TEXT
    if path.exists() and not (path.is_file() and path.stat().st_size <= most):
        raise OSError(errno.EINVAL, "is no file of a model, or too large for one")
    return path.read_bytes()
