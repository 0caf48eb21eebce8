"""A network with its pre- and post-processing, from uint8 images of any size to label maps.

Packaged models are logged to MLflow as `torch.export` programs (`pt2`) that run with PyTorch and
MLflow alone. heartseg itself reads the weights next to the program (`heartseg.models.package`).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from safetensors.torch import save
from torch import nn
from torch.nn import functional as F

from heartseg.data.resize import resize_images
from heartseg.datasets.spec import UNCHANGED, View
from heartseg.models.connected_components import keep_largest_components
from heartseg.models.outputs import mean_logits, predicted_labels
from heartseg.models.package import WEIGHTS
from heartseg.models.tta import TTATransform

if TYPE_CHECKING:
    from mlflow.models.model import ModelInfo

# Mean and standard deviation of ImageNet's grey values, with which torchvision's weights were
# trained. For a network that is trained from scratch, any constants would do.
MEAN, STD = 255 * 0.449, 255 * 0.226

REQUIREMENTS = ("mlflow", "numpy", "torch")
"""Packages that a packaged model needs to run."""

EXAMPLE_SIZE = (2, 72, 88)
"""(batch, height, width) of the example input. The export would treat a size of 1 as constant."""


def normalise(images: torch.Tensor) -> torch.Tensor:
    """Scale grey values in 0..255 to float32 with about zero mean and unit variance."""
    return (images.float() - MEAN) / STD


class PackagedModel(nn.Module):
    """Resize and normalise images, run the network, and convert its logits to label maps.

    The input is uint8 (N, C, H, W), the output uint8 (N, H, W), for any H and W.

    Args:
        network: Network of `heartseg.models.build_network` in evaluation mode, or an `Ensemble`.
        size: Rows and columns of the network's input in pixels.
        largest_component: Keep only the largest connected component of each label.
        sigmoids: Whether each channel is a sigmoid; see `heartseg.models.outputs.uses_sigmoids`.
    """

    def __init__(
        self,
        network: nn.Module,
        size: int,
        largest_component: bool = False,
        *,
        sigmoids: bool = False,
    ):
        super().__init__()
        self.network = network
        self.size = size
        self.largest_component = largest_component
        self.sigmoids = sigmoids
        self.set_tta((UNCHANGED,))

    def set_tta(self, views: Sequence[View]) -> None:
        """Set the views whose predictions are averaged. Each view costs a forward pass."""
        device = next(self.parameters(), torch.empty(0)).device
        transforms = (TTATransform(view, self.size) for view in views)
        self.transforms = nn.ModuleList(transforms).to(device)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.labels(self.logits(images))

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Compute logits float32 (N, K, H, W) at the images' resolution, averaged over the views.

        Args:
            images: uint8 (N, C, H, W).
        """
        resized = resize_images(images, self.size).float()
        transforms = cast("list[TTATransform]", list(self.transforms))
        # All views are one batch, so that an exported graph contains the network only once.
        batch = torch.cat([transform(resized) for transform in transforms])
        logits = self.network(normalise(batch))
        per_view = logits.reshape(len(transforms), resized.shape[0], *logits.shape[1:])
        aligned = [
            transform.inverse(part) for transform, part in zip(transforms, per_view, strict=True)
        ]
        mean = mean_logits(aligned, self.sigmoids)
        return F.interpolate(mean, size=images.shape[-2:], mode="bilinear", align_corners=False)

    def labels(self, logits: torch.Tensor) -> torch.Tensor:
        """Convert logits (N, K, H, W) to label maps uint8 (N, H, W) and post-process them."""
        labels = predicted_labels(logits)
        if not self.largest_component:
            return labels
        return keep_largest_components(labels, max(logits.shape[1], 2))


def copy_weights(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copy a state dict to the CPU so that no two tensors share memory.

    safetensors does not support shared memory, and MONAI's DynUNet has layers with two names.
    """
    return {
        key: weight.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, weight in weights.items()
    }


def export_model(model: PackagedModel, in_channels: int) -> torch.export.ExportedProgram:
    """Export a model as a graph of PyTorch operators on the CPU that runs without heartseg.

    Batch, height and width are dynamic, including an image of one pixel and, except for MONAI's
    DynUNet, an empty batch. The given model is not changed.
    """
    ready = copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format).eval()
    dynamic = {dimension: torch.export.Dim.DYNAMIC for dimension in (0, 2, 3)}
    with torch.no_grad():
        return torch.export.export(ready, (_example(in_channels),), dynamic_shapes=(dynamic,))


def log_packaged(
    model: PackagedModel,
    in_channels: int,
    *,
    name: str,
    run_id: str,
    metadata: dict[str, Any] | None = None,
) -> ModelInfo:
    """Log a model to a run of the current MLflow tracking server.

    Args:
        model: Model with its pre- and post-processing.
        in_channels: Channels of its input.
        name: Name of the logged model.
        run_id: Run that trained the model.
        metadata: JSON-serialisable values for the MLmodel file.
    """
    import mlflow
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    client = mlflow.MlflowClient()
    run = client.get_run(run_id)
    # Without an active run, Model.log would create the model in the default experiment.
    logged = client.create_logged_model(
        run.info.experiment_id, name=name, source_run_id=run_id, params=run.data.params
    )
    uint8 = np.dtype(np.uint8)  # unnamed, because MLflow expects a dict for named tensors
    signature = ModelSignature(
        inputs=Schema([TensorSpec(uint8, (-1, in_channels, -1, -1))]),
        outputs=Schema([TensorSpec(uint8, (-1, -1, -1))]),
    )
    return Model.log(  # the same call as in mlflow.pytorch.log_model
        artifact_path=None,
        flavor=SimpleNamespace(save_model=partial(_save, copy_weights(model.network.state_dict()))),
        model_id=logged.model_id,
        run_id=run_id,
        metadata=metadata,
        pytorch_model=export_model(model, in_channels).module(),
        serialization_format="pt2",
        signature=signature,
        input_example=_example(in_channels).numpy(),
        pip_requirements=[f"{package}=={version(package)}" for package in REQUIREMENTS],
    )


def _save(weights: dict[str, torch.Tensor], path: str, mlflow_model: Any, **arguments: Any) -> None:
    """Save like `mlflow.pytorch.save_model`, add the weights, and set the device to the CPU.

    An exported program stays on the device on which it was exported. By default MLflow requests
    CUDA if it is available, and would reject our models on every machine with a GPU.
    """
    import mlflow.pytorch

    mlflow.pytorch.save_model(path=path, mlflow_model=mlflow_model, **arguments)
    (Path(path) / WEIGHTS).write_bytes(save(weights))
    mlflow_model.flavors["python_function"]["config"]["device"] = "cpu"
    mlflow_model.save(str(Path(path) / "MLmodel"))


def _example(in_channels: int) -> torch.Tensor:
    """Return an example input, uint8 (N, C, H, W)."""
    batch, height, width = EXAMPLE_SIZE
    return torch.zeros(batch, in_channels, height, width, dtype=torch.uint8)
