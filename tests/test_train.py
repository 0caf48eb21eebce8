"""`heartseg train` killed in the midst of an epoch, and run again."""

from __future__ import annotations

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

import pytest
import yaml

from heartseg.data.prepared import file_digest
from heartseg.tracking.mlflow import connect
from heartseg.training.journal import read_epochs, read_progress
from tests.clones import environment, run
from tests.examples import ROOT, small_recipe, write_disks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EPOCHS = 8


@pytest.fixture(scope="module", params=[1, 2])
def repository(request, tmp_path_factory) -> Path:
    """Prepared images and params.yaml for so many workers."""
    from heartseg.config import load_params

    place = tmp_path_factory.mktemp(f"workers{request.param}")
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    recipe = small_recipe(load_params(ROOT / "params.yaml"), epochs=EPOCHS)
    content["recipes"]["camus"] = recipe.model_dump(mode="json")
    content["train"]["workers"] = request.param
    (place / "params.yaml").write_text(yaml.safe_dump(content))
    write_disks(place, train=300, val=4)
    return place


def train(place: Path, *options: str) -> str:
    """Run to the end; the digest of the weights."""
    run([sys.executable, "-m", "heartseg.train", "camus", *options], place)
    return file_digest(place / "results/camus/model/weights.safetensors")


def test_killed_and_run_again_ends_with_the_same_weights(repository):
    workers = yaml.safe_load((repository / "params.yaml").read_text())["train"]["workers"]
    # One worker gives the very weights of a training without Ray, which starts faster.
    undisturbed = train(repository, *(["--in-process"] if workers == 1 else []))
    earlier = set((repository / "runs").glob("*/"))
    if workers > 1:  # the same folder will be used again
        for folder in earlier:
            (folder / "progress.json").unlink()

    driver = subprocess.Popen(
        [sys.executable, "-m", "heartseg.train", "camus"],
        cwd=repository,
        env=environment(repository),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while True:  # until it is in the midst of an epoch after the second
        assert driver.poll() is None, "it ended before it could be killed"
        folders = set((repository / "runs").glob("*/")) - (earlier if workers == 1 else set())
        now = [progress for folder in folders if (progress := read_progress(folder))]
        if now and now[0]["epoch"] > 2 and 0 < now[0]["step"] < now[0]["steps"]:
            break
        time.sleep(0.02)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    (folder,) = folders
    time.sleep(6)  # Ray's processes notice within seconds that their driver is gone
    before = len(read_epochs(folder))
    assert 2 <= before < EPOCHS
    time.sleep(4)
    assert len(read_epochs(folder)) == before, "the killed training goes on"

    assert train(repository) == undisturbed
    client = connect(f"sqlite:///{repository}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("heartseg-camus").experiment_id])
    assert [r.info.status for r in runs] == ["FINISHED", "FINISHED"]  # one each, none left over
    for one in runs:
        history = client.get_metric_history(one.info.run_id, "val_loss")
        assert [point.step for point in history] == list(range(1, EPOCHS + 1))
    assert len({r.data.metrics["val_loss"] for r in runs}) == 1


@pytest.fixture
def head() -> Iterator[tuple[str, Path]]:
    """Address and folder of a Ray cluster of its own, as `ray start` makes it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # short: Ray's sockets lie in it
    command = ["ray", "start", "--head", "--block", f"--port={port}", "--num-cpus=2",
               "--node-ip-address=127.0.0.1", f"--temp-dir={folder}", "--include-dashboard=false",
               "--disable-usage-stats"]  # fmt: skip
    process = subprocess.Popen(
        command, env=environment(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while socket.socket().connect_ex(("127.0.0.1", port)):
        assert time.monotonic() < deadline, "ray start did not come up"
        time.sleep(0.2)
    yield f"127.0.0.1:{port}", folder
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("repository", [1], indirect=True)
def test_ray_address_names_the_cluster_to_join(repository, head):
    address, folder = head
    command = [sys.executable, "-m", "heartseg.train", "camus"]
    assert "epoch 8" in run(command, repository, timeout=200, extra={"RAY_ADDRESS": address})
    assert list(folder.glob("session_*/logs/train/*controller*"))  # it trained there


@pytest.mark.parametrize("repository", [1], indirect=True)
def test_a_cluster_that_does_not_answer_is_named(repository):
    done = subprocess.run(
        [sys.executable, "-m", "heartseg.train", "camus"],
        cwd=repository,
        env=environment(repository) | {"RAY_ADDRESS": "127.0.0.1:1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no Ray cluster answers at RAY_ADDRESS=127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr
