"""Write the folder of a pulled model: a torch.export program, ONNX, weights, recipe and card.

Only this module makes exported programs and ONNX files, for people without heartseg; nothing
here, or elsewhere in heartseg, loads one.
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
    CARD,
    FACTS,
    FILES,
    ONNX,
    PROGRAM,
    RECIPE,
    SUMS,
    WEIGHTS,
    Package,
)

OPSET = 20
COMPARED = ((1, 96, 80), (3, 61, 133), (2, 200, 168))
"""Batch, height, width on which ONNX Runtime and torch are compared."""
TOLERANCE = 2e-3
"""Greatest part of an image's pixels that may differ: those where two labels are equally likely,
so that the order of additions decides."""


def write_folder(folder: Path, package: Package, origin: dict[str, Any], card: str) -> None:
    """Write all files into an existing empty folder.

    Args:
        folder: empty.
        package: of the registry.
        origin: name, version, run and signature, JSON-serialisable.
        card: Markdown.

    Raises:
        InputError: the model cannot be built, or ONNX Runtime and torch disagree.
    """
    channels = package.metadata["recipe"]["model"]["in_channels"]
    program = export_model(package.build(), channels)
    program.example_inputs = None  # the only thing in the archive that would be pickled
    torch.export.save(program, folder / PROGRAM)
    (folder / WEIGHTS).write_bytes(package.weights)
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
