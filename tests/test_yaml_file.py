"""Values are set in a YAML file whose comments, order and other lines stay as they are."""

from __future__ import annotations

import pytest

from heartseg.config import load_params
from heartseg.yaml_file import change_yaml
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
            ("recipes", "camus", "augment", "rotate_degrees"): 12.5,
            ("recipes", "mmode", "model", "squeeze_excite"): "channel",
            ("recipes", "mmode", "compile"): True,
            ("pipeline", "camus"): "camus-unet",
        },
    )
    after = path.read_text().splitlines()
    assert len(after) == len(before)
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert [new.split("#")[0].split("}")[0].strip() for _, new in changed] == [
        "camus: camus-unet",
        "batch_size: 16",
        "learning_rate: 1e-05",
        "augment: {probability: 0.8, flip_left_right: false, rotate_degrees: 12.5, scale: 0.1, "
        "shift: 0.05, brightness: 0.2, contrast: 0.2, gamma: 0.2, speckle: 0.05, blur: 0",
        "model: {name: quicknat, in_channels: 1, filters: 16, kernel: 5, "
        "squeeze_excite: channel, dropout: 0.0, weights: null",
        "compile: true",
    ]
    found = load_params(path)
    assert found.pipeline["camus"] == "camus-unet"
    assert found.recipe("camus").learning_rate == 1e-05
    assert found.recipe("camus").model == params.recipe("camus").model  # with its null weights
    assert found.recipe("camus-unet") == params.recipe("camus-unet")


def test_nothing_changes_where_a_key_does_not_exist(path):
    before = path.read_bytes()
    with pytest.raises(KeyError):
        change_yaml(path, {("pipeline", "camus"): "x", ("recipes", "none", "seed"): 1})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["params.yaml"]


def test_a_write_that_fails_leaves_the_file(path):
    before = path.read_bytes()
    with pytest.raises(Exception, match="represent"):
        change_yaml(path, {("pipeline", "camus"): object()})
    assert path.read_bytes() == before
