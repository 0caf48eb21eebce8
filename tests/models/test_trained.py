"""Tests of writing and reading the folder of a trained model."""

from __future__ import annotations

import pytest
import torch

from heartseg.errors import InputError
from heartseg.models import build_network
from heartseg.models.trained import (
    TRAINING,
    WEIGHTS,
    load_trained,
    read_training,
    save_ensemble,
    save_trained,
)
from tests.examples import small_recipe, training_record

DYNUNET = {"name": "dynunet", "in_channels": 1, "filters": [4, 8, 8], "dropout": 0.0}


@pytest.mark.parametrize("model", [None, DYNUNET])
def test_round_trip(params, tmp_path, model):
    """Includes DynUNet, whose state dict has the same layers under two names."""
    recipe = small_recipe(params) if model is None else small_recipe(params, model=model)
    network = build_network(recipe.model, 4).eval()
    training = training_record(recipe, epoch=3)
    save_trained(tmp_path / "model", network.state_dict(), training)

    packaged, loaded, content = load_trained(tmp_path / "model")
    assert (loaded, content.epoch, packaged.size) == (recipe, 3, 32)
    images = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(packaged.network(images), network(images))


@pytest.mark.parametrize("loss", ["ce_dice", "one_vs_rest_bce"])
def test_round_trip_of_an_ensemble(params, tmp_path, loss):
    recipe = small_recipe(params, loss=loss)
    networks = [build_network(recipe.model, 4).eval() for _ in range(3)]
    training = training_record(recipe)
    save_ensemble(tmp_path / "model", [net.state_dict() for net in networks], training)

    packaged, _, content = load_trained(tmp_path / "model")
    assert (content.members, packaged.sigmoids) == (3, loss == "one_vs_rest_bce")
    images = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        each = [net(images) for net in networks]
        logits = packaged.network(images)
    if packaged.sigmoids:
        expected = torch.stack([one.sigmoid() for one in each]).mean(0)
        torch.testing.assert_close(logits.sigmoid(), expected)
    else:
        expected = torch.stack([one.softmax(1) for one in each]).mean(0)
        torch.testing.assert_close(logits.softmax(1), expected)


def test_a_newer_model_replaces_the_older_one(params, tmp_path):
    recipe = small_recipe(params)
    weights = build_network(recipe.model, 4).state_dict()
    for epoch in (1, 2):
        save_trained(tmp_path / "model", weights, training_record(recipe, epoch=epoch))
    assert read_training(tmp_path / "model") == training_record(recipe, epoch=2)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_missing_and_damaged_folders(params, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_trained(tmp_path / "model")
    recipe = small_recipe(params)
    weights = build_network(recipe.model, 4).state_dict()
    save_trained(tmp_path / "model", weights, training_record(recipe))
    path = tmp_path / "model" / WEIGHTS
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="no readable model"):
        load_trained(tmp_path / "model")


def test_the_error_for_a_model_of_another_version_names_its_commit(params, tmp_path):
    recipe = small_recipe(params)
    facts = training_record(recipe, tags={"git.commit": "abc123"})
    weights = build_network(recipe.model, 4).state_dict()
    older = facts.model_copy(deep=True)
    del older.recipe["model"]["weights"]
    save_trained(tmp_path / "field", weights, older)
    save_trained(tmp_path / "layer", dict(list(weights.items())[1:]), facts)

    for name in ("field", "layer"):
        with pytest.raises(InputError, match=rf"{name}: .*this version.*commit abc123"):
            load_trained(tmp_path / name)


@pytest.mark.parametrize("text", ["", "{}", '{"recipe_name": 3}', "[1]"])
def test_a_damaged_record_is_rejected(params, tmp_path, text):
    recipe = small_recipe(params)
    save_trained(
        tmp_path / "model", build_network(recipe.model, 4).state_dict(), training_record(recipe)
    )
    (tmp_path / "model" / TRAINING).write_text(text)
    with pytest.raises(InputError, match="train it again"):
        load_trained(tmp_path / "model")
