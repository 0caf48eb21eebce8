"""A registered model that thresholds gray values: quick to export, and what it finds is known."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import mlflow
import pytest
import torch
from safetensors.torch import save

from heartseg.config.params import load_params
from heartseg.config.recipe import Recipe
from heartseg.models import build_network
from heartseg.models.inference import log_packaged
from heartseg.models.package import CHECKSUMS, MODEL_INFO, WEIGHTS
from heartseg.models.trained import build_model
from heartseg.tracking import registry
from tests.examples import ROOT
from tests.tracking.stores import new_run

MODEL = "models:/heartseg-camus@champion"
CARD = "# heartseg-camus version 1\n\nA threshold.\n"


def threshold_recipe() -> dict[str, object]:
    """A recipe of a QuickNAT with a single filter, at 32 x 32 pixels."""
    recipe = load_params(ROOT / "params.yaml").recipe("camus-quicknat").model_dump(mode="json")
    model = recipe["model"] | {"filters": 1, "kernel": 3}
    return recipe | {"model": model, "input_size": 32, "loss": "ce_dice"}


def threshold_weights(shift: float = 0.0) -> dict[str, torch.Tensor]:
    """The network's weights by hand: label 1 where the normalised gray value is above `shift`.

    Only the first encoder and the last decoder let anything through, which is the image itself.
    """
    recipe = Recipe.model_validate(threshold_recipe())
    state = build_network(recipe.model, 4).state_dict()
    for key, values in state.items():
        passes = key.endswith(("running_var", "activation.weight"))
        values.fill_(passes or (".norms." in key and key.endswith("weight")))
        if key.endswith("running_var"):
            values -= 1e-5  # which BatchNorm adds
    for block in ("encoders.0", "decoders.3"):
        state[f"{block}.0.convolutions.2.weight"][0, 0] = 1.0  # the block's own first input
    state["classifier.weight"][:2, 0, 0, 0] = torch.tensor([-1.0, 1.0])
    state["classifier.bias"] += torch.tensor([shift, -shift, -1000.0, -1000.0])
    return state


def write_threshold(folder: Path, shift: float = 0.0) -> Path:
    """The model as a pulled folder, with the files alone that heartseg reads."""
    facts = {"dataset": "camus", "recipe": threshold_recipe(), "postprocess": "none"}
    content = {
        WEIGHTS: save(threshold_weights(shift)),
        MODEL_INFO: json.dumps({"metadata": facts}).encode(),
    }
    folder.mkdir()
    for name, data in content.items():
        (folder / name).write_bytes(data)
    sums = (f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in content.items())
    (folder / CHECKSUMS).write_text("".join(sums))
    return folder


def register_threshold(uri: str, shift: float = 0.0) -> None:
    """Register the model as champion, with a card."""
    client = registry.use_store(uri)
    run_id = new_run(uri)
    # resized to its own size an image of 32 x 32 stays as it is
    info = log_packaged(
        build_model(threshold_recipe(), threshold_weights(shift))[0],
        1,
        name="threshold",
        run_id=run_id,
        metadata={
            "dataset": "camus",
            "recipe": threshold_recipe(),
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
