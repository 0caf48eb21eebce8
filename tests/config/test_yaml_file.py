"""Values are set in a YAML file whose comments, order and other lines stay as they are."""

from __future__ import annotations

import difflib

import pytest

from heartseg.config.params import load_params
from heartseg.config.yaml_file import change_yaml
from tests.examples import ROOT


@pytest.fixture
def path(tmp_path):
    copy = tmp_path / "params.yaml"
    copy.write_bytes((ROOT / "params.yaml").read_bytes())
    return copy


def test_only_the_values_change(path, params):
    before = path.read_text().splitlines()
    change_yaml(
        path,
        {
            ("recipes", "camus", "learning_rate"): 1e-05,
            ("recipes", "camus", "batch_size"): 16,
            ("recipes", "camus", "augment", "rotate_degrees"): 12.5,  # its section is made
            ("recipes", "mmode", "model", "squeeze_excite"): "channel",
            ("recipe_defaults", "compile"): True,
            ("pipeline", "camus"): "camus-unet",
        },
    )
    changed = [
        line[2:].split("#")[0].strip()
        for line in difflib.ndiff(before, path.read_text().splitlines())
        if line.startswith("+ ") and line[2:].strip()
    ]
    assert sorted(changed) == [
        "augment:",
        "batch_size: 16",
        "camus: camus-unet",
        "compile: true",
        "learning_rate: 1e-05",
        "model: {name: quicknat, squeeze_excite: channel}",
        "rotate_degrees: 12.5",
    ]
    found = load_params(path)
    assert found.pipeline["camus"] == "camus-unet"
    assert found.recipe("camus").learning_rate == 1e-05
    assert found.recipe("camus").augment.rotate_degrees == 12.5
    assert found.recipe("camus").augment.scale == params.recipe("camus").augment.scale
    assert found.recipe("camus").model == params.recipe("camus").model  # with its null weights
    assert found.recipe("camus-unet").model == params.recipe("camus-unet").model


def test_nothing_changes_where_a_value_is_no_section(path):
    before = path.read_bytes()
    with pytest.raises(AttributeError):
        change_yaml(path, {("pipeline", "mmode"): "x", ("pipeline", "camus", "seed"): 1})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["params.yaml"]


def test_a_write_that_fails_leaves_the_file(path):
    before = path.read_bytes()
    with pytest.raises(Exception, match="represent"):
        change_yaml(path, {("pipeline", "camus"): object()})
    assert path.read_bytes() == before
