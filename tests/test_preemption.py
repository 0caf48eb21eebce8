"""`heartseg train` asked to end in the midst of an epoch, with a damaged checkpoint and without a
tracking server: the same command ends with the same weights, and nothing is lost for MLflow."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from heartseg.config.params import load_params
from heartseg.data.prepared import file_digest
from heartseg.tracking.client import connect
from heartseg.training.checkpoint import checkpoints
from heartseg.training.journal import read_epochs, read_progress
from tests.clones import environment, run
from tests.examples import ROOT, small_recipe, write_disks
from tests.processes import wait_until
from tests.tracking.stores import Server, _cold_store, _own_environment

__all__ = ["_cold_store", "_own_environment"]

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(600)]

EPOCHS = 6
COMMAND = [sys.executable, "-m", "heartseg.train", "camus", "--in-process"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    recipe = small_recipe(load_params(ROOT / "params.yaml"), epochs=EPOCHS)
    content["recipes"]["camus"] = recipe.model_dump(mode="json")
    content["tracking"] |= {"system_metrics": False, "offline": "buffer"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    write_disks(tmp_path, train=160, val=4)
    return tmp_path


@pytest.fixture
def down(tmp_path: Path, _cold_store: Path) -> Iterator[Server]:
    """A server that does not run yet."""
    folder = tmp_path / "server"
    folder.mkdir()
    shutil.copy(_cold_store, folder / "mlflow.db")
    server = Server(folder)
    yield server
    server.stop()


def weights(place: Path) -> str:
    return file_digest(place / "results/camus/model/weights.safetensors")


def test_notice_damage_and_no_server(place: Path, down: Server):
    here = {"MLFLOW_TRACKING_URI": down.uri, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    run(COMMAND, place)  # undisturbed, to SQLite
    undisturbed = weights(place)
    (folder,) = (place / "runs").glob("*/")
    undisturbed_epochs = [entry["metrics"]["train_loss"] for entry in read_epochs(folder)]
    (folder / "progress.json").unlink()

    driver = subprocess.Popen(
        COMMAND,
        cwd=place,
        env=environment(place) | here,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )

    def in_the_midst_of_an_epoch() -> bool:
        assert driver.poll() is None
        now = read_progress(folder)
        return now is not None and now["epoch"] > 1 and 0 < now["step"] < now["steps"]

    wait_until(in_the_midst_of_an_epoch, "the second epoch")
    driver.send_signal(signal.SIGTERM)
    said = driver.communicate(timeout=240)[1]
    assert driver.returncode == 143
    assert "training without it (tracking.offline: buffer)" in said
    assert "run the same command again" in said
    assert "Traceback" not in said
    newest = checkpoints(folder)[-1]
    assert newest.name[5:11] != "000000", "it did not save in the midst of an epoch"

    newest.write_bytes(newest.read_bytes()[:-100])
    said = run(COMMAND, place, extra=here)
    assert f"{newest.name}.damaged: wrong checksum" in said.replace("\n", "")
    assert "waits for `heartseg sync`" in said
    assert weights(place) == undisturbed
    assert [e["metrics"]["train_loss"] for e in read_epochs(folder)] == undisturbed_epochs

    sync = [sys.executable, "-m", "heartseg.sync"]
    refused = subprocess.run(
        sync, cwd=place, env=environment(place) | here, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "does not answer" in refused.stderr
    down.start()
    assert f"{EPOCHS} epochs are in MLflow, FINISHED" in run(sync, place, extra=here)
    assert "nothing in" in run(sync, place, extra=here)
    client = connect(down.uri)
    (sent,) = client.search_runs([client.get_experiment_by_name("heartseg-camus").experiment_id])
    assert sent.info.status == "FINISHED"
    history = client.get_metric_history(sent.info.run_id, "loss/train")
    assert [point.step for point in history] == list(range(1, EPOCHS + 1))
    assert [point.value for point in history] == undisturbed_epochs
