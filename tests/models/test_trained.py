"""What a training leaves for the next stages."""

from __future__ import annotations

import json

import pytest
import torch

from heartseg.errors import InputError
from heartseg.models import build_network
from heartseg.models.trained import TRAINING, WEIGHTS, load_trained, save_trained
from tests.examples import small_recipe

DYNUNET = {"name": "dynunet", "in_channels": 1, "filters": [4, 8, 8], "dropout": 0.0}


@pytest.mark.parametrize("model", [None, DYNUNET])
def test_round_trip(params, tmp_path, model):
    """DynUNet too, which holds the same layers under two names."""
    recipe = small_recipe(params) if model is None else small_recipe(params, model=model)
    network = build_network(recipe.model, 4).eval()
    training = {"recipe": recipe.model_dump(mode="json"), "epoch": 3}
    save_trained(tmp_path / "model", network.state_dict(), training)

    packaged, back, facts = load_trained(tmp_path / "model")
    assert (back, facts["epoch"], packaged.size) == (recipe, 3, 32)
    images = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(packaged.network(images), network(images))


def test_a_newer_model_replaces_the_older_whole(params, tmp_path):
    recipe = small_recipe(params)
    weights = build_network(recipe.model, 4).state_dict()
    for epoch in (1, 2):
        save_trained(tmp_path / "model", weights, {"epoch": epoch})
    assert json.loads((tmp_path / "model" / TRAINING).read_text()) == {"epoch": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_missing_and_damaged_folders_are_named(params, tmp_path):
    with pytest.raises(InputError, match="train the model first"):
        load_trained(tmp_path / "model")
    recipe = small_recipe(params)
    weights = build_network(recipe.model, 4).state_dict()
    save_trained(tmp_path / "model", weights, {"recipe": recipe.model_dump(mode="json")})
    path = tmp_path / "model" / WEIGHTS
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="holds no readable model"):
        load_trained(tmp_path / "model")
