"""A packaged model as files that need neither heartseg nor MLflow: a folder, read without pickle.

model.pt2             torch.export program: uint8 (N, C, H, W) -> uint8 label maps (N, H, W)
model.onnx            the same, post-processing included, for any ONNX runtime
weights.safetensors   the network's state alone, by the names of heartseg.models
recipe.yaml           what defines the training
model_card.md         what the model is for, and how good it is
model.json            where it comes from, signature, versions, how far ONNX agrees
SHA256SUMS            of all of these, as `sha256sum --check` reads it
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save
from torch.export.passes import move_to_device_pass
from torch.nn import functional as F

from heartseg.errors import InputError, one_line
from heartseg.models.archive import check_archive
from heartseg.models.packaged import with_probabilities

PROGRAM = "model.pt2"
ONNX = "model.onnx"
WEIGHTS = "weights.safetensors"
RECIPE = "recipe.yaml"
CARD = "model_card.md"
FACTS = "model.json"
SUMS = "SHA256SUMS"
FILES = (PROGRAM, ONNX, WEIGHTS, RECIPE, CARD, FACTS)

OPSET = 20
COMPARED = ((1, 96, 80), (3, 61, 133), (2, 200, 168))
"""Batch, height, width on which ONNX Runtime and torch are compared."""
TOLERANCE = 2e-3
"""Greatest part of an image's pixels that may differ: those where two labels are equally likely,
so that the order of additions decides."""

Predict = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Package:
    """A model that has not been loaded yet; small enough to be sent to other processes.

    Attributes:
        name: what the user called it.
        program: the bytes of model.pt2.
        metadata: dataset, recipe and post-processing.
    """

    name: str
    program: bytes
    metadata: dict[str, Any]

    @property
    def weights_sha256(self) -> str:
        """Of the weights as they stand in the archive."""
        digest = hashlib.sha256()
        with zipfile.ZipFile(io.BytesIO(self.program)) as archive:
            for record in sorted(n for n in archive.namelist() if "/data/weights/weight_" in n):
                digest.update(archive.read(record))
        return digest.hexdigest()

    def load(self) -> Predict:
        """The model on the GPU if there is one: uint8 (N, C, H, W) -> uint8 (N, H, W).

        Raises:
            InputError: it holds pickled objects.
        """
        module, device = self._module()

        def predict(images: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return module(torch.from_numpy(images).to(device)).cpu().numpy()

        return predict

    def load_with_probabilities(self) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """As `load`; beside the label maps the class probabilities float32 (N, labels, H, W)."""
        module, _ = self._module()
        return with_probabilities(module, self.metadata["recipe"]["loss"] == "one_vs_rest_bce")

    def _module(self) -> tuple[Any, str]:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        program = load_program(self.program, self.name)
        return move_to_device_pass(program, device).module(), device


# --- reading ------------------------------------------------------------------------------


def load_program(content: bytes, name: str) -> torch.export.ExportedProgram:
    """The program of a model.pt2, on the CPU.

    Raises:
        InputError: the archive is broken, or holds pickled objects or other code.
    """
    try:
        check_archive(content)
        return torch.export.load(io.BytesIO(content))
    except Exception as error:  # torch raises many kinds
        raise InputError(
            f"{name}: its {PROGRAM} is no model without pickle ({one_line(error)}). Pull it again."
        ) from None


def read_folder(folder: Path) -> Package:
    """A pulled model whose files are what SHA256SUMS says.

    Raises:
        InputError: names the file that is missing or has changed, and the remedy.
    """
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise InputError(
            f"{folder}: is no pulled model, it has no readable {SUMS}. Make one by `heartseg pull "
            f"MODEL --to {folder}`, or name a model of the registry (models:/NAME@champion)."
        ) from None
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    content = {}
    for name in FILES:
        try:
            content[name] = (folder / name).read_bytes()
        except OSError as error:
            raise InputError(f"{folder / name}: {error.strerror}. Pull the model again.") from None
        if sums.get(name) != hashlib.sha256(content[name]).hexdigest():
            raise InputError(
                f"{folder / name}: is not the file that was pulled (its SHA-256 is not that of "
                f"{SUMS}). Pull the model again."
            )
    return Package(str(folder), content[PROGRAM], json.loads(content[FACTS])["metadata"])


# --- writing ------------------------------------------------------------------------------


def write_folder(folder: Path, package: Package, origin: dict[str, Any], card: str) -> None:
    """Write all files into an existing empty folder.

    Args:
        folder: empty.
        package: of the registry.
        origin: name, version, run and signature, JSON-serialisable.
        card: Markdown.

    Raises:
        InputError: ONNX Runtime and torch disagree.
    """
    program = load_program(package.program, package.name)
    program.example_inputs = None  # the only thing in the archive that would be pickled
    torch.export.save(program, folder / PROGRAM)
    # not by save_file, which lets nobody else read it
    (folder / WEIGHTS).write_bytes(save(_network_state(program)))
    channels = package.metadata["recipe"]["model"]["in_channels"]
    write_onnx(program, folder / ONNX)
    disagreement = compare_onnx(program, folder / ONNX, channels)
    facts = {
        **origin,
        "metadata": package.metadata,
        "onnx": {
            "opset": OPSET,
            "compared_batch_height_width": COMPARED,
            "pixels_that_differ_at_most": disagreement,
            "tolerated": TOLERANCE,
        },
        "versions": {name: version(name) for name in ("torch", "onnx", "onnxruntime")},
    }
    (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    recipe = yaml.safe_dump(package.metadata["recipe"], sort_keys=False)
    (folder / RECIPE).write_text(recipe, encoding="utf-8")
    (folder / CARD).write_text(card, encoding="utf-8")
    digests = [(hashlib.sha256((folder / name).read_bytes()).hexdigest(), name) for name in FILES]
    text = "".join(f"{digest}  {name}\n" for digest, name in digests)
    (folder / SUMS).write_text(text, encoding="utf-8")


def _network_state(program: torch.export.ExportedProgram) -> dict[str, torch.Tensor]:
    """The state by the network's own names: the packaged model holds it as `network`."""
    return {
        key.removeprefix("network."): tensor.detach().clone(memory_format=torch.contiguous_format)
        for key, tensor in program.state_dict.items()
    }


def write_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    """The program as ONNX: images uint8 (batch, C, height, width) -> labels uint8 (batch, height,
    width), with its weights inside the file."""
    import onnx

    for name in ("onnx_ir", "onnxscript", "torch.onnx"):
        logging.getLogger(name).setLevel(logging.ERROR)  # notes on its own operators
    exported = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=OPSET,
        input_names=["images"],
        output_names=["labels"],
        external_data=False,
        verbose=False,
    )
    assert exported is not None
    model = exported.model_proto
    # torch calls the free sizes s34, s14, s54; what lies between follows from the ends
    ends = ((model.graph.input[0], (0, 2, 3)), (model.graph.output[0], (0, 1, 2)))
    for value, axes in ends:
        for axis, name in zip(axes, ("batch", "height", "width"), strict=True):
            value.type.tensor_type.shape.dim[axis].dim_param = name
    del model.graph.value_info[:]
    onnx.checker.check_model(model)
    onnx.save_model(model, path)


def compare_onnx(program: torch.export.ExportedProgram, path: Path, channels: int) -> float:
    """Greatest part of an image's pixels in which ONNX Runtime and torch differ on the CPU.

    Raises:
        InputError: it is more than TOLERANCE.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    module = program.module()
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for batch, height, width in COMPARED:
        # clouds with speckle: on pure noise a network may well see nothing anywhere
        clouds = torch.rand(batch, channels, 6, 5, generator=generator)
        clouds = F.interpolate(clouds, size=(height, width), mode="bicubic")
        speckle = torch.rand(clouds.shape, generator=generator)
        images = (255 * clouds * (0.5 + speckle)).clamp(0, 255).to(torch.uint8)
        with torch.no_grad():
            expected = module(images).numpy()
        labels = session.run(None, {"images": images.numpy()})[0]
        if labels.shape != expected.shape or labels.dtype != np.uint8:
            raise InputError(f"ONNX gives {labels.dtype} {labels.shape} for {expected.shape}")
        worst = max(worst, float((labels != expected).mean((1, 2)).max()))
    if worst > TOLERANCE:
        raise InputError(
            f"ONNX Runtime and torch differ in {100 * worst:.2f} % of an image's pixels, over the "
            f"{100 * TOLERANCE:g} % that rounding may do; nothing was written. Use the model with "
            "torch, or try another version of onnxruntime."
        )
    return worst
