"""Write the folder of a pulled model: a torch.export program, ONNX, weights, recipe and card.

The exported program and the ONNX file are for users without heartseg. heartseg never loads them.
"""

from __future__ import annotations

import hashlib
import json
import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch.nn import functional as F

from heartseg.errors import InputError
from heartseg.models.inference import export_model
from heartseg.models.package import (
    CHECKSUMS,
    FILES,
    MODEL_CARD,
    MODEL_INFO,
    ONNX,
    PROGRAM,
    RECIPE,
    WEIGHTS,
    Package,
)

OPSET = 20
COMPARED_SHAPES = ((1, 96, 80), (3, 61, 133), (2, 200, 168))
"""(batch, height, width) of the images with which ONNX Runtime and torch are compared."""
TOLERANCE = 2e-3
"""Maximum fraction of an image's pixels that may differ. Rounding changes pixels where two labels
are almost equally likely."""


def write_package(folder: Path, package: Package, origin: dict[str, Any], card: str) -> None:
    """Write a model in all formats to a folder.

    Args:
        folder: Existing empty folder.
        package: Model of the registry.
        origin: Name, version, run and signature of the model, JSON-serialisable.
        card: Model card in Markdown.

    Raises:
        InputError: The model cannot be built, or ONNX Runtime and torch disagree.
    """
    channels = package.metadata["recipe"]["model"]["in_channels"]
    program = export_model(package.build(), channels)
    program.example_inputs = None  # nothing else in the archive would be pickled
    torch.export.save(program, folder / PROGRAM)
    (folder / WEIGHTS).write_bytes(package.weights)
    write_onnx(program, folder / ONNX)
    disagreement = compare_onnx(program, folder / ONNX, channels)
    info = {
        **origin,
        "metadata": package.metadata,
        "onnx": {
            "opset": OPSET,
            "compared_batch_height_width": COMPARED_SHAPES,
            "pixels_that_differ_at_most": disagreement,
            "tolerated": TOLERANCE,
        },
        "versions": {name: version(name) for name in ("torch", "onnx", "onnxruntime")},
    }
    (folder / MODEL_INFO).write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")
    recipe = yaml.safe_dump(package.metadata["recipe"], sort_keys=False)
    (folder / RECIPE).write_text(recipe, encoding="utf-8")
    (folder / MODEL_CARD).write_text(card, encoding="utf-8")
    digests = [(hashlib.sha256((folder / name).read_bytes()).hexdigest(), name) for name in FILES]
    text = "".join(f"{digest}  {name}\n" for digest, name in digests)
    (folder / CHECKSUMS).write_text(text, encoding="utf-8")


def write_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    """Write a program as ONNX, with its weights inside the file.

    The model maps images uint8 (batch, C, height, width) to labels uint8 (batch, height, width).
    """
    import onnx

    for name in ("onnx_ir", "onnxscript", "torch.onnx"):
        logging.getLogger(name).setLevel(logging.ERROR)  # hide notes on its own operators
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
    # torch names dynamic sizes s34, s14, s54. Shapes of inner values follow from input and output.
    dynamic = ((model.graph.input[0], (0, 2, 3)), (model.graph.output[0], (0, 1, 2)))
    for value, axes in dynamic:
        for axis, name in zip(axes, ("batch", "height", "width"), strict=True):
            value.type.tensor_type.shape.dim[axis].dim_param = name
    del model.graph.value_info[:]
    onnx.checker.check_model(model)
    onnx.save_model(model, path)


def compare_onnx(program: torch.export.ExportedProgram, path: Path, channels: int) -> float:
    """Compare ONNX Runtime and torch on the CPU with random images.

    Returns:
        The greatest fraction of an image's pixels in which the labels differ.

    Raises:
        InputError: The fraction exceeds `TOLERANCE`.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    module = program.module()
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for batch, height, width in COMPARED_SHAPES:
        # Clouds with speckle, because a network may find nothing at all in pure noise.
        clouds = torch.rand(batch, channels, 6, 5, generator=generator)
        clouds = F.interpolate(clouds, size=(height, width), mode="bicubic")
        speckle = torch.rand(clouds.shape, generator=generator)
        images = (255 * clouds * (0.5 + speckle)).clamp(0, 255).to(torch.uint8)
        with torch.no_grad():
            expected = module(images).numpy()
        labels = session.run(None, {"images": images.numpy()})[0]
        if labels.shape != expected.shape or labels.dtype != np.uint8:
            raise InputError(
                f"ONNX Runtime returned {labels.dtype} {labels.shape}, expected uint8 "
                f"{expected.shape}; nothing was written. Try another version of onnxruntime."
            )
        worst = max(worst, float((labels != expected).mean((1, 2)).max()))
    if worst > TOLERANCE:
        raise InputError(
            f"ONNX Runtime and torch differ in {100 * worst:.2f} % of an image's pixels, more than "
            f"the {100 * TOLERANCE:g} % that rounding explains; nothing was written. Use the model "
            "with torch, or try another version of onnxruntime."
        )
    return worst
