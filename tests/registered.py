"""A registered model that thresholds gray values: quick to export, and what it finds is known."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlflow
import pytest
import torch

from heartseg.models.packaged import PackagedModel, log_packaged
from heartseg.tracking import registry
from tests.tracking.stores import new_run

MODEL = "models:/heartseg-camus@champion"
CARD = "# heartseg-camus version 1\n\nA threshold.\n"


class Threshold(torch.nn.Module):
    """Label 1 where the gray value is above the mean of `normalise`, at the network's own size."""

    def __init__(self, shift: float = 0.0):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.tensor([shift]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x - self.shift
        return torch.cat([-x, x, -10 - x.abs(), -10 - x.abs()], dim=1)


def register_threshold(uri: str, shift: float = 0.0) -> None:
    """Register the model as champion, with a card."""
    client = registry.use_store(uri)
    run_id = new_run(uri)
    # resized to its own size an image of 32 x 32 stays as it is
    info = log_packaged(
        PackagedModel(Threshold(shift), 32).eval(),
        1,
        name="threshold",
        run_id=run_id,
        metadata={
            "dataset": "camus",
            "recipe": {"dataset": "camus", "loss": "ce_dice", "model": {"in_channels": 1}},
            "postprocess": "none",
        },
    )
    version = registry.register_version(client, "heartseg-camus", run_id, info.model_uri, {})
    client.set_registered_model_alias("heartseg-camus", "champion", version)
    client.update_model_version("heartseg-camus", version, CARD)
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="session")
def registered(tmp_path_factory: pytest.TempPathFactory, _cold_store: Path) -> str:
    """URI of a store that has the model as champion."""
    path = tmp_path_factory.mktemp("registry") / "mlflow.db"
    shutil.copy(_cold_store, path)
    register_threshold(f"sqlite:///{path}")
    return f"sqlite:///{path}"
