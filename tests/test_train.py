"""`heartseg train` on a cluster of others: killed in the midst of an epoch, and run again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from heartseg.data.prepared import file_digest
from heartseg.tracking.client import connect
from heartseg.training.journal import read_epochs, read_progress
from tests.clones import environment, run
from tests.examples import ROOT, small_recipe, write_disks
from tests.tracking.stores import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EPOCHS = 6
COMMAND = [sys.executable, "-m", "heartseg.train", "camus"]


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """Prepared images and params.yaml for two workers."""
    from heartseg.config.params import load_params

    place = tmp_path_factory.mktemp("repository")
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    recipe = small_recipe(load_params(ROOT / "params.yaml"), epochs=EPOCHS)
    content["recipes"]["camus"] = recipe.model_dump(mode="json")
    content["train"]["workers"] = 2
    (place / "params.yaml").write_text(yaml.safe_dump(content))
    write_disks(place, train=32, val=4)  # few: two workers synchronise each norm, which takes long
    return place


@pytest.fixture(scope="module")
def head() -> Iterator[tuple[str, Path]]:
    """Address and folder of a Ray cluster of its own, as `ray start` makes it."""
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # short: Ray's sockets lie in it
    command = ["ray", "start", "--head", "--block", f"--port={port}", "--num-cpus=2",
               "--node-ip-address=127.0.0.1", f"--temp-dir={folder}", "--include-dashboard=false",
               "--disable-usage-stats"]  # fmt: skip
    process = psutil.Popen(
        command, env=environment(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while socket.socket().connect_ex(("127.0.0.1", port)):
        assert time.monotonic() < deadline, "ray start did not come up"
        time.sleep(0.2)
    yield f"127.0.0.1:{port}", folder
    for one in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait(60)
    shutil.rmtree(folder, ignore_errors=True)


def weights(place: Path) -> str:
    return file_digest(place / "results/camus/model/weights.safetensors")


def test_killed_and_run_again_ends_with_the_same_weights(head, repository):
    address, sessions = head
    there = {"RAY_ADDRESS": address}
    run(COMMAND, repository)  # on a cluster that it starts itself
    undisturbed = weights(repository)
    (folder,) = (repository / "runs").glob("*/")
    (folder / "progress.json").unlink()  # the same folder will be used again

    driver = subprocess.Popen(
        COMMAND,
        cwd=repository,
        env=environment(repository) | there,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while True:  # until it is in the midst of an epoch after the second
        assert driver.poll() is None, "it ended before it could be killed"
        now = read_progress(folder)
        if now and now["epoch"] > 2 and 0 < now["step"] < now["steps"]:
            break
        time.sleep(0.02)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    time.sleep(6)  # Ray's processes notice within seconds that their driver is gone
    before = len(read_epochs(folder))
    assert 2 <= before < EPOCHS
    time.sleep(4)
    assert len(read_epochs(folder)) == before, "the killed training goes on"

    run(COMMAND, repository, extra=there)
    assert weights(repository) == undisturbed
    assert list(sessions.glob("session_*/logs/train/*controller*")), "it trained elsewhere"
    client = connect(f"sqlite:///{repository}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("heartseg-camus").experiment_id])
    assert [r.info.status for r in runs] == ["FINISHED", "FINISHED"]  # one each, none left over
    for one in runs:
        history = client.get_metric_history(one.info.run_id, "loss/val")
        assert [point.step for point in history] == list(range(1, EPOCHS + 1))
    assert len({r.data.metrics["loss/val"] for r in runs}) == 1


def test_a_cluster_that_does_not_answer_is_named(repository):
    done = subprocess.run(
        COMMAND,
        cwd=repository,
        env=environment(repository) | {"RAY_ADDRESS": "127.0.0.1:1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no Ray cluster answers at RAY_ADDRESS=127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr
