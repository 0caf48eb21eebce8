"""`heartseg register` on a model of random weights, as the train and evaluate stages leave it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heartseg import register
from heartseg.config.params import Params
from heartseg.data.prepared import Sample, file_digest, write_prepared
from heartseg.errors import InputError
from heartseg.models import build_network
from heartseg.models.trained import save_trained
from heartseg.paths import model_dir, prepared_path, results_dir
from heartseg.tracking import descriptions, pulled
from heartseg.tracking.client import connect
from tests.examples import ROOT, small_recipe, training_record
from tests.tracking.stores import _cold_store, _own_environment, forget_run, new_run, store

__all__ = ["_cold_store", "_own_environment", "store"]

NAME = "heartseg-camus"


@pytest.fixture(autouse=True)
def _stages(
    _own_environment: None, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository after prepare, whose default store is `store`."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    pixels = np.zeros((16, 16), np.uint8)
    sample = Sample("p1_2CH_ED", "p1", "2CH", "ED", 0, pixels, pixels, (0.5, 0.5))
    facts = {
        "dataset": "camus",
        "source": "data/CAMUS_public",
        "patients": {"train": 0, "val": 0, "test": 1},
        "cases": {"train": 0, "val": 0, "test": 1},
        "split": {"method": "official"},
        "skipped": [],
    }
    write_prepared(prepared_path("camus"), [sample], {"p1": "test"}, facts)


def train(params: Params, uri: str, seed: int = 0, run_id: str | None = None) -> str:
    """What the train stage leaves; the run's id."""
    recipe = small_recipe(params)
    torch.manual_seed(seed)
    run_id = run_id or new_run(uri)
    training = training_record(
        recipe,
        epoch=2,
        data_digest=file_digest(prepared_path("camus")),
        tracking_uri=uri,
        experiment=NAME,
        mlflow_run_id=run_id,
    )
    save_trained(model_dir("camus"), build_network(recipe.model, 4).state_dict(), training)
    connect(uri).set_terminated(run_id)
    return run_id


def evaluate(
    dice: float, digest: str = "1" * 32, postprocess: str = "none", plausible: float | None = 0.9
) -> None:
    """What the evaluate stage leaves."""
    metrics = {
        "overall": {"mean": {"dice": dice}},
        "plausibility": {"n": 1, "fraction": plausible, "flags": {}, "by_view": {}, "by_phase": {}},
        "evaluated_on": "test",
        "postprocess": {"chosen": postprocess, "chosen_on": "val"},
        "tta": {"chosen": "none", "chosen_on": "val"},
        "n_patients": 1,
        "n_cases": 1,
        "data_digest": digest,
        "weights_md5": file_digest(model_dir("camus") / "weights.safetensors"),
    }
    (results_dir("camus") / "report.json").write_text(json.dumps(metrics))


def registered() -> dict[str, Any]:
    register.main(["camus"])
    return json.loads((results_dir("camus") / "registered.json").read_text())


def versions(uri: str) -> int:
    return len(connect(uri).search_model_versions(f"name = '{NAME}'"))


@pytest.mark.slow
def test_a_model_is_registered_once_and_can_be_pulled(params, store, monkeypatch):
    # The card of this evaluation is short.
    monkeypatch.setattr(descriptions, "DESCRIPTION_LENGTH", 3000)
    run_id = train(params, store)
    evaluate(0.8)

    first = registered()
    card = (results_dir("camus") / "model_card.md").read_bytes()
    again = registered()

    assert (first["name"], first["version"], first["alias"]) == (NAME, "1", "champion")
    assert first["run_id"] == run_id
    assert (first["metric"], first["value"]) == ("Dice", 0.8)
    assert first["weights_md5"] == file_digest(model_dir("camus") / "weights.safetensors")
    assert versions(store) == 1
    assert again == first
    assert (results_dir("camus") / "model_card.md").read_bytes() == card

    client = connect(store)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    [logged] = client.search_logged_models([run.info.experiment_id])
    assert logged.source_run_id == run_id
    assert "model_card.md" in [file.path for file in client.list_artifacts(run_id)]
    version = client.get_model_version(NAME, "1")
    assert version.run_id == run_id
    assert version.description == descriptions.first_page(card.decode())
    assert len(version.description) <= 3000 < len(card)
    origin = {"run_id": run_id, "model_id": logged.model_id, "model": first["model_uri"]}
    assert pulled.read_card(store, origin)[1] == card.decode()
    model = pulled.pull(store, first["model_uri"])
    assert model.metadata["dataset"] == "camus"
    images = np.random.default_rng(0).integers(0, 255, (1, 1, 40, 52), np.uint8)
    labels = pulled.pull(store, f"models:/{NAME}@champion").predict(images)
    assert labels.shape == (1, 40, 52)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, model.predict(images))


@pytest.mark.slow
def test_a_worse_model_becomes_challenger_until_it_is_judged_better(params, store):
    train(params, store)
    evaluate(0.8)
    registered()
    train(params, store, seed=1)

    evaluate(0.7)
    worse = registered()
    evaluate(0.9)  # the same weights, after a correction of the evaluation
    better = registered()

    assert (worse["version"], worse["alias"]) == ("2", "challenger")
    assert (better["version"], better["alias"]) == ("2", "champion")
    assert connect(store).get_model_version(NAME, "2").tags["eval.value"] == "0.9"


@pytest.mark.slow
def test_below_a_floor_no_model_becomes_champion(params, store, capsys):
    """Not even the first; when it is corrected, it does."""
    train(params, store)
    for dice, plausible in ((0.69, 0.9), (0.9, 0.49), (0.9, None)):
        evaluate(dice, plausible=plausible)
        below = registered()
        assert (below["version"], below["alias"]) == ("1", "challenger")
        key = "Dice" if dice < 0.7 else "valid"
        assert f"floor: {key}" in below["reason"]
        assert below["reason"] in capsys.readouterr().out
        assert "champion" not in connect(store).get_registered_model(NAME).aliases

    evaluate(0.7, plausible=0.5)  # the least that is enough
    assert registered()["alias"] == "champion"

    evaluate(0.6)  # of a champion it is told
    still = registered()
    assert still["alias"] == "champion"
    assert "misses a floor" in still["reason"]


@pytest.mark.slow
def test_a_version_whose_run_is_gone_is_told(params, store):
    run_id = train(params, store)
    evaluate(0.8)
    registered()
    client = connect(store)

    client.delete_run(run_id)
    with pytest.raises(InputError, match=f"version 1 .*restore --run-id {run_id}"):
        register.main(["camus"])
    forget_run(store, run_id)
    with pytest.raises(InputError, match=f"version 1 .*run {run_id} is gone"):
        register.main(["camus"])
    assert versions(store) == 1


@pytest.mark.slow
def test_another_post_processing_is_another_version(params, store):
    train(params, store)
    evaluate(0.8)
    registered()
    evaluate(0.8, postprocess="largest_component")

    changed = registered()
    again = registered()

    assert changed["version"] == again["version"] == "2"
    assert pulled.pull(store, changed["model_uri"]).metadata["postprocess"] == "largest_component"


@pytest.mark.slow
def test_a_model_of_another_store_gets_a_run_in_this_one(params, store):
    """DVC brought the trained model from a colleague; the MLflow store stayed there."""
    elsewhere = train(params, store, run_id=None)
    connect(store).delete_run(elsewhere)
    evaluate(0.8)

    first = registered()
    again = registered()

    assert first["run_id"] == again["run_id"] != elsewhere
    assert versions(store) == 1
    run = connect(store).get_run(first["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["model.name"] == "quicknat"
    assert connect(store).get_model_version(NAME, "1").tags["heartseg.training_run"] == elsewhere


def test_a_model_that_was_not_evaluated_is_refused(params, store):
    train(params, store)

    with pytest.raises(InputError, match=r"report\.json does not exist; evaluate"):
        register.main(["camus"])


def test_metrics_without_the_configured_one_are_refused(params, store):
    train(params, store)
    (results_dir("camus") / "report.json").write_text('{"overall": {"LV": {}}}')

    with pytest.raises(InputError, match="Dice is undefined"):
        register.main(["camus"])

    assert connect(store).search_registered_models() == []


def test_the_model_of_another_recipe_is_refused(params, store):
    train(params, store)
    evaluate(0.8)
    path = model_dir("camus") / "training.json"
    path.write_text(path.read_text().replace('"recipe_name": "camus"', '"recipe_name": "old"'))

    with pytest.raises(InputError, match="trained by recipe old, not camus"):
        register.main(["camus"])
