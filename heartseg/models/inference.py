"""A network with its pre- and post-processing: uint8 images of any size in, label maps out.

Packaged models are logged to MLflow as `torch.export` programs (`pt2`), for people without
heartseg: they need PyTorch and MLflow. heartseg itself reads the weights beside the program
(`heartseg.models.package`).
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
from heartseg.models.connected_components import keep_largest
from heartseg.models.outputs import mean_logits, predicted_labels
from heartseg.models.package import WEIGHTS
from heartseg.models.tta import Seen

if TYPE_CHECKING:
    from mlflow.models.model import ModelInfo

# Mean and standard deviation of ImageNet's grey values: what torchvision's weights were trained
# with, and as good as any other constants for a network that is trained from scratch.
MEAN, STD = 255 * 0.449, 255 * 0.226

REQUIREMENTS = ("mlflow", "numpy", "torch")  # what running a packaged model takes

EXAMPLE_SIZE = (2, 72, 88)  # batch, height, width; export would take a 1 for a constant


def normalise(images: torch.Tensor) -> torch.Tensor:
    """Grey values 0 to 255, uint8 or float, to float32 of about zero mean and unit variance."""
    return (images.float() - MEAN) / STD


class PackagedModel(nn.Module):
    """Resize, normalise, network, logits back to the image's own grid, label map.

    Input uint8 (N, C, H, W), output uint8 (N, H, W), for any H and W.

    Args:
        network: as of `heartseg.models.build_network`, in evaluation mode; or an `Ensemble`.
        size: rows and columns that the network was trained at.
        largest_component: keep each structure's largest connected part only.
        sigmoids: see `heartseg.models.outputs.one_vs_rest`.
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
        self.look_at((UNCHANGED,))

    def look_at(self, views: Sequence[View]) -> None:
        """Average the predictions of these views of each image: a forward pass for each."""
        device = next(self.parameters(), torch.empty(0)).device
        self.views = nn.ModuleList(Seen(view, self.size) for view in views).to(device)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.labels(self.logits(images))

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Logits float32 (N, K, H, W) on the images' own grid, of the mean over the views."""
        small = resize_images(images, self.size).float()
        views = cast("list[Seen]", list(self.views))
        # All views in one batch: an exported graph then holds the network once.
        seen = self.network(normalise(torch.cat([view.look(small) for view in views])))
        each = seen.reshape(len(views), small.shape[0], *seen.shape[1:])
        parts = [view.undo(part) for view, part in zip(views, each, strict=True)]
        mean = mean_logits(parts, self.sigmoids)
        return F.interpolate(mean, size=images.shape[-2:], mode="bilinear", align_corners=False)

    def labels(self, logits: torch.Tensor) -> torch.Tensor:
        """Label maps uint8 (N, H, W) of logits on the images' own grid, post-processed."""
        labels = predicted_labels(logits)
        return keep_largest(labels, max(logits.shape[1], 2)) if self.largest_component else labels


def unshared(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copy a state for safetensors, which wants no sharing: MONAI's DynUNet holds a layer under
    two names."""
    return {
        key: weight.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, weight in weights.items()
    }


def export_model(model: PackagedModel, in_channels: int) -> torch.export.ExportedProgram:
    """Export the model on CPU in evaluation mode as a graph of PyTorch operators, free of heartseg.

    Batch, height and width stay dynamic: an empty batch (but for MONAI's DynUNet) and an image of
    one pixel are taken too. The model given is left as it is.
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
    """Log the model to a run of the current tracking server.

    Args:
        name: of the logged model.
        run_id: the run that trained it.
        metadata: JSON-serialisable facts, kept in the package's MLmodel file.
    """
    import mlflow
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    client = mlflow.MlflowClient()
    run = client.get_run(run_id)
    # Model.log would create it in the default experiment, where no run is active in this process.
    logged = client.create_logged_model(
        run.info.experiment_id, name=name, source_run_id=run_id, params=run.data.params
    )
    uint8 = np.dtype(np.uint8)  # the tensors have no names: with names MLflow wants a dict
    signature = ModelSignature(
        inputs=Schema([TensorSpec(uint8, (-1, in_channels, -1, -1))]),
        outputs=Schema([TensorSpec(uint8, (-1, -1, -1))]),
    )
    return Model.log(  # as mlflow.pytorch.log_model does it
        artifact_path=None,
        flavor=SimpleNamespace(save_model=partial(_save, unshared(model.network.state_dict()))),
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
    """Save as `mlflow.pytorch.save_model` does, with the weights and CPU as the device to load on.

    An exported program stays on the device that it was exported on, while MLflow by default asks
    for CUDA where there is one, and would refuse our models on every machine with a GPU.
    """
    import mlflow.pytorch

    mlflow.pytorch.save_model(path=path, mlflow_model=mlflow_model, **arguments)
    (Path(path) / WEIGHTS).write_bytes(save(weights))
    mlflow_model.flavors["python_function"]["config"]["device"] = "cpu"
    mlflow_model.save(str(Path(path) / "MLmodel"))


def _example(in_channels: int) -> torch.Tensor:
    batch, height, width = EXAMPLE_SIZE
    return torch.zeros(batch, in_channels, height, width, dtype=torch.uint8)
