"""All stages while the store is down (tracking.offline: buffer), then `heartseg sync`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from heartseg import evaluate, register, sync, train
from heartseg.config.params import load_params
from heartseg.errors import InputError
from heartseg.tracking import pulled
from heartseg.tracking import tracker as tracker_module
from heartseg.tracking.client import connect
from tests.clones import set_params
from tests.examples import ROOT, small_recipe, write_disks
from tests.tracking.stores import Server, _cold_store, _own_environment, store

__all__ = ["_cold_store", "_own_environment", "store"]

pytestmark = [pytest.mark.slow, pytest.mark.chaos]

RESULTS = Path("results/camus")


def read(name: str) -> dict:
    return json.loads((RESULTS / name).read_text())


def test_every_stage_gets_through_and_sync_sends_it_all(store, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "server"
    folder.mkdir()
    (tmp_path / "mlflow.db").rename(folder / "mlflow.db")
    server = Server(folder)  # its port is closed until it is started
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(tracker_module, "CLOSE_S", 0.5)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    recipe = small_recipe(load_params(), epochs=2).model_dump(mode="json")
    set_params(
        tmp_path,
        {
            "recipes.camus": recipe,
            "tracking.system_metrics": False,
            "register.camus.floor": {},
            "evaluate.bootstrap_samples": 100,
            "evaluate.tta": "none",
            "evaluate.postprocess": "none",
        },
    )
    write_disks(tmp_path, train=8, val=4)
    for main in (train.main, evaluate.main, register.main):
        with pytest.raises((InputError, FileNotFoundError)):  # offline: fail
            main(["camus"] if main is not train.main else ["camus", "--in-process"])

    set_params(tmp_path, {"tracking.offline": "buffer"})
    train.main(["camus", "--in-process"])
    evaluate.main(["camus"])
    register.main(["camus"])

    for name in ("cases.csv", "clinical.csv", "report.json", "model_card.md", "registered.json"):
        assert (RESULTS / name).exists(), name  # what DVC wants of the stages
    assert read("registered.json")["model_uri"] is None
    capsys.readouterr()
    with pytest.raises(InputError, match="does not answer"):
        sync.main([])
    try:
        server.start()
        sync.main([])
        said = capsys.readouterr().out
        assert "2 epochs are in MLflow, FINISHED" in said
        client = connect(server.uri)
        registered = read("registered.json")
        assert (registered["version"], registered["alias"]) == ("1", "champion")
        run = client.get_run(registered["run_id"])
        assert [p.step for p in client.get_metric_history(run.info.run_id, "val_loss")] == [1, 2]
        assert "test/Dice" in run.data.metrics
        files = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert {"recipe.yaml", "lineage", "overlays", "evaluation", "model_card.md"} <= files
        assert "version 1 (champion)" in (RESULTS / "model_card.md").read_text()
        package, _ = pulled.fetch_package(server.uri, "models:/heartseg-camus@champion")
        assert package.metadata["dataset"] == "camus"
        sync.main([])
        assert "waits to be sent" in capsys.readouterr().out
    finally:
        server.stop()
