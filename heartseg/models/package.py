"""A registered or pulled model: its weights and the recipe of its network.

heartseg rebuilds the network from these two. It never loads an exported program (`model.pt2`),
because loading one can run arbitrary code. In the registry, the weights are next to the program. A
folder written by `heartseg pull` contains:

model.pt2             torch.export program: uint8 (N, C, H, W) -> uint8 label maps (N, H, W)
model.onnx            the same for ONNX runtimes, including post-processing
weights.safetensors   state dict of the network, with the names of heartseg.models
recipe.yaml           recipe of the training
model_card.md         intended use and performance
model.json            origin, signature, versions, and the comparison of ONNX and torch
SHA256SUMS            checksums of all these files, for `sha256sum --check`
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

if TYPE_CHECKING:
    from heartseg.models.inference import PackagedModel

PROGRAM = "model.pt2"
ONNX = "model.onnx"
WEIGHTS = "weights.safetensors"
RECIPE = "recipe.yaml"
MODEL_CARD = "model_card.md"
MODEL_INFO = "model.json"
CHECKSUMS = "SHA256SUMS"
FILES = (PROGRAM, ONNX, WEIGHTS, RECIPE, MODEL_CARD, MODEL_INFO)
FILES_READ = (WEIGHTS, MODEL_INFO)
"""The files that heartseg reads. The others are for users without heartseg."""

CHOICES = {"postprocess": ("none", "largest_component"), "tta": ("none", "views")}
"""Valid values of a model's metadata about pre- and post-processing."""
MAX_WEIGHTS_BYTES = 4 << 30
MAX_TEXT_BYTES = 16 << 20

Predict = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Package:
    """The data of a model whose network has not been built. It can be sent to other processes.

    Attributes:
        name: Name of the model or folder, for messages.
        weights: Content of weights.safetensors.
        metadata: Values of dataset, recipe, postprocess and tta.
    """

    name: str
    weights: bytes
    metadata: dict[str, Any]

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of weights.safetensors, in hexadecimal."""
        return hashlib.sha256(self.weights).hexdigest()

    def build(self) -> PackagedModel:
        """Build the model with its pre- and post-processing, on the CPU and in evaluation mode.

        Raises:
            InputError: The recipe or the weights are damaged or do not fit this version of
                heartseg.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        from heartseg.models.trained import build_model
        from heartseg.models.tta import views_of

        try:
            weights = load(self.weights)
        except (SafetensorError, KeyError) as error:  # KeyError: a data type unknown to torch
            raise InputError(
                f"{self.name}: {WEIGHTS} cannot be read ({one_line(error)}). Pull the model again."
            ) from None
        try:
            model, recipe = build_model(self.metadata["recipe"], weights)
            if self.metadata["dataset"] != recipe.dataset:
                raise InputError(
                    f"its metadata contains dataset {self.metadata['dataset']!a}, but its recipe "
                    f"{recipe.dataset}"
                )
        except InputError as error:
            raise InputError(
                f"{self.name}: {error}. Use the version of heartseg that registered it, or train "
                "and register the model again."
            ) from None
        for key, known in CHOICES.items():
            if (chosen := self.metadata.get(key, "none")) not in known:
                raise InputError(
                    f"{self.name}: {key} is {chosen!a}, which this version of heartseg does not "
                    "know. Use the version that registered the model."
                )
        model.largest_component = self.metadata.get("postprocess") == "largest_component"
        model.set_tta(views_of(self.metadata["dataset"], self.metadata.get("tta", "none")))
        return model

    def load(self) -> Predict:
        """Build the model, on the GPU if there is one, and return its prediction function.

        Returns:
            A function from images uint8 (N, C, H, W) to label maps uint8 (N, H, W).

        Raises:
            InputError: See `build`.
        """
        import torch

        model, device = self._on_device()

        def predict(images: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return model(torch.from_numpy(images).to(device)).cpu().numpy()

        return predict

    def load_with_probabilities(self) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Build the model like `load`.

        Returns:
            A function from images uint8 (N, C, H, W) to label maps uint8 (N, H, W) and class
            probabilities float32 (N, labels, H, W).

        Raises:
            InputError: See `build`.
        """
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


def read_package(folder: Path) -> Package:
    """Read a folder written by `heartseg pull`, and verify its checksums.

    Raises:
        InputError: A file is missing, cannot be read, or has changed.
    """
    try:
        lines = _read(folder / CHECKSUMS).decode().splitlines()
    except (OSError, UnicodeDecodeError):
        raise InputError(
            f"{folder} is not a pulled model: it contains no readable {CHECKSUMS}. Create one with "
            f"`heartseg pull MODEL --to {folder}`, or use a registered model "
            "(models:/NAME@champion)."
        ) from None
    checksums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    content = {}
    for name in FILES_READ:
        try:
            content[name] = _read(folder / name)
        except OSError as error:
            raise InputError(f"{folder / name}: {error.strerror}. Pull the model again.") from None
        if checksums.get(name) != hashlib.sha256(content[name]).hexdigest():
            raise InputError(
                f"{folder / name} has changed since it was pulled: its SHA-256 is not the one in "
                f"{CHECKSUMS}. Pull the model again."
            )
    try:
        metadata = json.loads(content[MODEL_INFO])["metadata"]
        if not {"dataset", "recipe"} <= metadata.keys():
            raise KeyError("dataset and recipe")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{folder / MODEL_INFO} does not describe a model ({one_line(error)}). Pull the model "
            "again."
        ) from None
    return Package(str(folder), content[WEIGHTS], metadata)


def _read(path: Path) -> bytes:
    """Read a file of an untrusted folder; reject devices and files that are too large.

    Raises:
        OSError: The file cannot be read, is not a regular file, or is too large.
    """
    limit = MAX_WEIGHTS_BYTES if path.name == WEIGHTS else MAX_TEXT_BYTES
    if path.exists() and not (path.is_file() and path.stat().st_size <= limit):
        raise OSError(errno.EINVAL, "not a regular file, or too large for a model")
    return path.read_bytes()
