"""Tests of params.yaml: the committed file is valid, and errors in others are reported."""

from __future__ import annotations

from collections import Counter

import pytest
import yaml
from pydantic import BaseModel

from heartseg.config.__main__ import main
from heartseg.config.params import Params, Train, load_params
from heartseg.config.recipe import Recipe, Section
from heartseg.config.sweep_file import SweepFile
from heartseg.data.splits import split_patients
from heartseg.errors import InputError
from tests.examples import ROOT


@pytest.fixture
def values():
    return yaml.safe_load((ROOT / "params.yaml").read_text())


def error_of(tmp_path, values):
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(InputError) as caught:
        load_params(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_the_committed_file_contains_every_value(params):
    """The classes have no defaults: all values are in params.yaml."""
    pending = [params]
    while pending:
        section = pending.pop()
        for name, field in type(section).model_fields.items():
            assert field.is_required(), f"{type(section).__name__}.{name} has a second default"
            value = getattr(section, name)
            children = value.values() if isinstance(value, dict) else [value]
            pending += [child for child in children if isinstance(child, BaseModel)]


def sections(section=Section):
    """Yield all subclasses of a section, at any depth."""
    for child in section.__subclasses__():
        yield child
        yield from sections(child)


def test_every_field_is_described_in_the_reference():
    found = set(sections())
    assert {Params, SweepFile} <= found
    missing = {
        f"{section.__name__}.{name}"
        for section in found
        for name, field in section.model_fields.items()
        if not field.description
    }
    assert not missing


def test_unknown_keys_are_reported_with_the_nearest_known_one(tmp_path, values):
    values["recipes"]["mmode"]["model"]["filterz"] = 8
    values["recipes"]["camus"]["learning_rat"] = 0.1
    values["phantom"] = {}
    text = error_of(tmp_path, values)
    assert "recipes.mmode.model.quicknat.filterz: no key 'filterz'; did you mean 'filters'?" in text
    assert (
        "recipes.camus.learning_rat: no key 'learning_rat'; did you mean 'learning_rate'?" in text
    )
    assert "phantom: no key 'phantom'; did you mean 'phantoms'?" in text


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("recipes.camus.batch_size", 0, "greater than or equal to 1"),
        ("recipes.camus.model.backbone", "resnet18", "resnet50"),
        ("recipes.camus.loss", "dice", "one_vs_rest_bce"),
        ("recipes.camus.class_weights", [1.0, 2.0], "4 labels"),
        ("datasets.camus.split.fold", 5, "fold 5 does not exist"),
        ("datasets.camus.split.test_fraction", 0.95, "leave no patient to train on"),
        ("register.camus.floor", {"dice": 0.7}, "did you mean 'Dice'?"),
        ("register.camus.floor", {"Dice": "good"}, "valid number"),
        ("datasets.camus.frames", 3, "greater than or equal to 4"),
        ("pipeline.camus", "camuss", "did you mean 'camus'?"),
        ("pipeline.camus", "mmode", "recipe mmode trains on mmode"),
        ("recipes.mmode-quality.dataset", "mmode", "window_cnn does not fit dataset mmode"),
        ("recipes.mmode.dataset", "mmode-quality", "quicknat does not fit dataset mmode-quality"),
        ("recipes.mmode-quality.augment.shift", 0.1, "shift of augment to 0"),
    ],
)
def test_invalid_values_are_reported(tmp_path, values, path, value, reason):
    *parents, key = path.split(".")
    section = values
    for parent in parents:
        section = section[parent]
    section[key] = value
    assert reason in error_of(tmp_path, values)


def test_a_recipe_takes_missing_values_from_the_defaults(tmp_path, values):
    values["recipe_defaults"]["optimizer"] = "sgd"
    values["recipe_defaults"]["augment"]["blur"] = 1.5
    values["model_defaults"]["quicknat"]["kernel"] = 7
    values["recipes"]["mmode"] |= {"optimizer": "adamw", "augment": {"shift": 0.25}}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    params = load_params(path)
    mmode, camus = params.recipe("mmode"), params.recipe("camus")
    assert (mmode.optimizer, camus.optimizer) == ("adamw", "sgd")
    assert (mmode.augment.shift, mmode.augment.blur) == (0.25, 1.5)
    assert mmode.augment.rotate_degrees == values["recipe_defaults"]["augment"]["rotate_degrees"]
    assert (mmode.model.kernel, params.recipe("camus-quicknat").model.kernel) == (7, 7)
    assert camus.model == load_params(ROOT / "params.yaml").recipe("camus").model


@pytest.mark.parametrize(
    ("place", "wrong", "message"),
    [
        (["recipe_defaults"], {"momentun": 0.5}, "recipe_defaults.momentun: no key"),
        (["recipe_defaults"], {"epochs": 5}, "recipe_defaults.epochs: no key"),
        (["model_defaults", "unet"], {"dropout": 2}, "model_defaults.unet.dropout"),
        (["model_defaults"], {"unett": {}}, "did you mean 'unet'"),
    ],
)
def test_an_error_in_the_defaults_is_reported_once(tmp_path, values, place, wrong, message):
    section = values
    for key in place:
        section = section[key]
    section |= wrong
    text = error_of(tmp_path, values)
    assert message in text
    assert len(text.splitlines()) == 1


def test_a_whole_recipe_is_printed(params, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    main(["show", "camus-unet"])
    shown = yaml.safe_load(capsys.readouterr().out)
    assert list(shown)[:6] == [
        *("dataset", "model", "input_size", "batch_size", "learning_rate", "epochs"),
    ]
    assert Recipe.model_validate(shown) == params.recipe("camus-unet")


def test_a_key_of_an_earlier_version_gets_the_present_name(tmp_path, values):
    values["tracking"] = values["tracking"] | {"when_down": values["tracking"].pop("offline")}
    assert "tracking.when_down: no key 'when_down'; did you mean 'offline'?" in error_of(
        tmp_path, values
    )


def test_missing_file_and_broken_yaml(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("recipes: [")
    with pytest.raises(InputError, match="is not valid YAML"):
        load_params(tmp_path / "params.yaml")


def test_unknown_recipe(params):
    with pytest.raises(InputError, match="no recipe 'camsu'; did you mean 'camus'"):
        params.recipe("camsu")


def test_worker_batch(params):
    recipe = params.recipe("camus").model_copy(update={"batch_size": 12})
    assert [recipe.worker_batch(n) for n in (1, 2, 3, 12)] == [12, 6, 4, 1]
    with pytest.raises(InputError, match=r"\[1, 2, 3, 4, 6, 12\]"):
        recipe.worker_batch(5)


def test_the_source_recipe_is_echo2phenos(params):
    """heart_segmentation/run.py and trainer.py of Echo2Pheno, and its README's example run."""
    recipe = params.recipe("mmode-source")
    model = recipe.model
    assert (model.filters, model.kernel, model.squeeze_excite, model.dropout) == (
        64,
        5,
        "none",
        0.2,
    )
    assert (recipe.input_size, recipe.batch_size, recipe.epochs) == (256, 4, 20)
    assert (recipe.learning_rate, recipe.schedule, recipe.weight_decay) == (1e-4, "constant", 0)
    assert recipe.loss == "one_vs_rest_bce"
    assert recipe.augment.probability == 0
    animals = {f"animal{number}" for number in range(50)}
    split = params.datasets.mmode.split.model_copy(
        update={"method": "random", "test_fraction": 0.0, "val_fraction": 0.2}
    )
    assert Counter(split_patients(animals, split, None).values()) == {"train": 40, "val": 10}


def test_elastic_workers_are_ordered(params):
    train = params.train.model_dump() | {"workers": {"min": 3, "max": 2, "look_every_s": 60}}
    with pytest.raises(ValueError, match="min is 3, max only 2"):
        Train.model_validate(train)
