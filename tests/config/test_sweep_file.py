"""Tests of sweep files: the repository's are valid, and each error gets one message."""

from __future__ import annotations

from itertools import product

import pytest

from heartseg.config.sweep_file import read_sweep
from heartseg.errors import InputError
from tests.examples import ROOT
from tests.sweeps.small import TPE, small_sweep


@pytest.mark.parametrize("path", sorted((ROOT / "sweeps").glob("*.yaml")), ids=lambda p: p.stem)
def test_files_of_the_repository_are_valid(params, path):
    sweep = read_sweep(path, params)
    own = params.recipe(sweep.recipe).model_dump()
    assert sweep.recipe_for(sweep.complete_point({}, params), params).model_dump() == own
    assert path.read_text().startswith(f"# Run: python -m heartseg.sweep sweeps/{path.name} ")
    longest = {"asha": lambda p: p.min_epochs * p.reduction_factor}[sweep.pruner.name]
    assert sweep.pruner.min_epochs < own["epochs"] <= longest(sweep.pruner) * 3  # it can prune


LR = {"learning_rate": {"loguniform": [0.001, 0.01]}}
ERRORS = {
    "unknown field": (
        {"space": {"learning_rat": {"loguniform": [0.001, 0.01]}}},
        "space: no field 'learning_rat'; did you mean 'learning_rate'? (recipe camus)",
    ),
    "unknown nested field": (
        {"space": {"augment.rotate_degree": {"uniform": [0, 20]}}},
        "no field 'augment.rotate_degree'; did you mean 'augment.rotate_degrees'?",
    ),
    "unknown key": ({"trial": 3}, "trial: no key 'trial'; did you mean 'trials'?"),
    "unknown recipe": ({"recipe": "camu"}, "no recipe 'camu'; did you mean 'camus'?"),
    "bad type": (
        {"space": {"learning_rate": {"choice": [0.003, "fast"]}}},
        "space.learning_rate: 'fast': learning_rate: Input should be a valid number",
    ),
    "bad value": (
        {"space": {"batch_size": {"choice": [0, 12]}}},
        "space.batch_size: 0: batch_size: Input should be greater than or equal to 1",
    ),
    "batch of two workers": (
        {
            "space": {"batch_size": {"choice": [12, 15]}},
            "resources": {"workers": 2, "cpus": 1, "gpus": 0},
        },
        "space.batch_size: 15: 2 workers cannot share batch_size 15 equally",
    ),
    "part of a GPU for two workers": (
        {"resources": {"workers": 2, "cpus": 1, "gpus": 0.5}},
        "resources: workers that train together need a whole GPU each",
    ),
    "metric of another dataset": (
        {"metric": "lvid_mae", "mode": "min"},
        "no metric 'lvid_mae'; known: dice_mean, dice_lv, dice_myo, dice_la, val_loss, ef_mae "
        "(dataset camus)",
    ),
    "misspelt metric": ({"metric": "dice_men"}, "did you mean 'dice_mean'?"),
    "wrong mode": ({"mode": "min"}, "mode must be max for metric dice_mean"),
    "wrong mode of an error": ({"metric": "ef_mae"}, "mode must be min for metric ef_mae"),
    "uniform whole numbers": (
        {"space": {"batch_size": {"uniform": [8, 16]}}},
        "batch_size: Input should be a valid integer",
    ),
    "own value outside": (
        {"space": {"batch_size": {"choice": [8, 16]}}},
        "space.batch_size does not contain 12 (from recipe camus)",
    ),
    "first outside": (
        {"initial_points": [{"batch_size": 24}]},
        "space.batch_size does not contain 24 (from initial_points)",
    ),
    "first of another field": (
        {"initial_points": [{"batchsize": 8}]},
        "initial_points: no searched field 'batchsize'; did you mean 'batch_size'?",
    ),
    "grid with a range": (
        {"space": LR, "sampler": {"name": "grid"}},
        "space.learning_rate: a grid needs choice or integers",
    ),
    "a condition on a later field": (
        {
            "space": {
                "momentum": {"uniform": [0.5, 0.99], "when": {"optimizer": ["sgd"]}},
                "optimizer": {"choice": ["adamw", "sgd"]},
            }
        },
        "space.momentum: when: no earlier field 'optimizer'",
    ),
    "a condition that is never true": (
        {
            "space": {
                "optimizer": {"choice": ["adamw", "sgd"]},
                "momentum": {"uniform": [0.5, 0.99], "when": {"optimizer": ["sdg"]}},
            }
        },
        "space.momentum: when: optimizer is never 'sdg'",
    ),
    "an endless range": (
        {"space": {"learning_rate": {"loguniform": [0.001, float("inf")]}}},
        "space.learning_rate.LogUniform.loguniform.1: Input should be a finite number",
    ),
    "a pruner that comes too late": (
        {"pruner": {"name": "asha", "min_epochs": 18, "reduction_factor": 2}},
        "pruner.min_epochs: 18 of 18 epochs (recipe camus) stops no trial",
    ),
    "without an end": ({"trials": None}, "set trials or hours"),
    "ends exchanged": (
        {"space": {"learning_rate": {"loguniform": [0.01, 0.001]}}},
        "space.learning_rate: the first value must be below the second",
    ),
    "step that misses the end": (
        {"space": {"input_size": {"integers": [96, 170], "step": 32}}},
        "space.input_size.Integers: 170 is not 96 plus a multiple of step 32",
    ),
    "misspelt range": (
        {"space": {"batch_size": {"choices": [8, 12]}}},
        "space.batch_size: give one of choice, uniform, loguniform and integers",
    ),
    "two ranges": (
        {"space": {"batch_size": {"choice": [8, 12], "uniform": [8, 12]}}},
        "space.batch_size: give one of choice, uniform, loguniform and integers",
    ),
    "unknown key of a range": (
        {"space": {"learning_rate": {"uniform": [0.001, 0.01], "wen": {}}}},
        "space.learning_rate.Uniform.wen: no key 'wen'; did you mean 'when'?",
    ),
    "unknown key of a sampler": (
        {"sampler": TPE | {"multivariat": True}},
        "sampler.tpe.multivariat: no key 'multivariat'; did you mean 'multivariate'?",
    ),
    "unknown pruner": ({"pruner": {"name": "hyperband"}}, "'asha', 'median', 'none'"),
    "other data": (
        {"space": {"recipe": {"choice": ["camus", "mmode"]}}},
        "space.recipe: mmode trains on mmode, not camus",
    ),
    "dataset": (
        {"space": {"dataset": {"choice": ["camus", "mmode"]}}},
        "space.dataset: trials on different data",
    ),
}


@pytest.mark.parametrize(("changes", "message"), ERRORS.values(), ids=ERRORS)
def test_each_error_gets_one_message(params, tmp_path, changes, message):
    with pytest.raises(InputError) as caught:
        small_sweep(params, tmp_path, **changes)
    text = str(caught.value)
    assert message in text
    assert len(text.splitlines()) == 1
    if "recipe" not in changes:
        assert text.startswith(str(tmp_path / "small.yaml"))


def test_an_integer_is_a_number_but_true_is_not(params, tmp_path):
    space = {"ema_decay": {"choice": [0, 0.9]}, "augment.rotate_degrees": {"integers": [0, 20]}}
    space["augment.rotate_degrees"] |= {"step": 5}
    own = small_sweep(params, tmp_path, space=space).complete_point({}, params)
    assert own == {"ema_decay": 0.0, "augment.rotate_degrees": 10.0}
    with pytest.raises(InputError, match="does not contain True"):
        small_sweep(params, tmp_path, space={"ema_decay": {"choice": [0]}}, initial_points=[
            {"ema_decay": True}
        ])  # fmt: skip


def test_fields_that_do_not_apply_are_left_out(params, tmp_path):
    space = {
        "optimizer": {"choice": ["adamw", "sgd"]},
        "momentum": {"uniform": [0.5, 0.99], "when": {"optimizer": ["sgd"]}},
    }
    sweep = small_sweep(params, tmp_path, space=space, initial_points=[{"optimizer": "sgd"}])
    assert sweep.first_points(params) == [
        {"optimizer": "adamw"},
        {"optimizer": "sgd", "momentum": 0.9},
    ]
    assert sweep.recipe_for({"optimizer": "sgd", "momentum": 0.7}, params).momentum == 0.7


def test_a_recipe_as_a_choice(params, tmp_path):
    space = {
        "recipe": {"choice": ["camus", "camus-unet"]},
        "model.dropout": {"uniform": [0, 0.5], "when": {"recipe": ["camus-unet"]}},
        "input_size": {"choice": [96, 128]},
    }
    sweep = small_sweep(params, tmp_path, space=space, initial_points=[{"recipe": "camus-unet"}])
    points = sweep.first_points(params)
    assert points == [
        {"recipe": "camus", "input_size": 128},
        {"recipe": "camus-unet", "model.dropout": 0.0, "input_size": 128},
    ]
    recipe = sweep.recipe_for(points[1] | {"model.dropout": 0.25}, params)
    assert (recipe.model.name, recipe.model.dropout) == ("unet", 0.25)
    assert recipe.epochs == params.recipe("camus-unet").epochs
    with pytest.raises(InputError, match=r"no field 'model.dropout'.* \(recipe camus\)"):
        small_sweep(params, tmp_path, space=space | {"model.dropout": {"uniform": [0, 0.5]}})


def test_a_grid_has_every_point_once_and_the_recipe_first(params, tmp_path):
    space = {
        "batch_size": {"choice": [8, 12]},
        "input_size": {"integers": [96, 160], "step": 32},
        "optimizer": {"choice": ["adamw", "sgd"]},
        "momentum": {"choice": [0.8, 0.9], "when": {"optimizer": ["sgd"]}},
    }
    sweep = small_sweep(params, tmp_path, space=space, sampler={"name": "grid"}, trials=None,
                        hours=1)  # fmt: skip
    points = sweep.first_points(params)
    assert points[0] == {"batch_size": 12, "input_size": 128, "optimizer": "adamw"}
    found = [tuple(point.values()) for point in points]
    kinds = [("adamw",), ("sgd", 0.8), ("sgd", 0.9)]
    assert sorted(found) == sorted(
        (batch, size, *kind) for batch, size, kind in product([8, 12], [96, 128, 160], kinds)
    )
    assert sweep.trial_count(params) == 18
    assert (
        small_sweep(params, tmp_path, space=space, sampler={"name": "grid"}).trial_count(params)
        == 6
    )
    assert (
        small_sweep(params, tmp_path, sampler=TPE, trials=None, hours=1).trial_count(params) is None
    )


def test_a_number_with_an_exponent_is_a_number(params, tmp_path):
    """PyYAML reads 1e-3 as text, which is not valid for a numeric field."""
    own = params.recipe("camus").learning_rate
    sweep = small_sweep(params, tmp_path, space={"learning_rate": {"choice": ["1e-3", own]}})
    assert "1e-3\n" in (tmp_path / "small.yaml").read_text()
    assert sweep.space["learning_rate"].values() == [0.001, own]
