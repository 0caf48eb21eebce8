"""`heartseg train` on Ray, ended from outside: by signals, and by the death of Ray's processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from heartseg.config.params import load_params
from heartseg.tracking.client import connect
from heartseg.training.checkpoint import checkpoints
from heartseg.training.journal import PROGRESS, read_progress
from tests.clones import environment
from tests.examples import ROOT, small_recipe, write_disks
from tests.processes import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

COMMAND = [sys.executable, "-m", "heartseg.train", "camus"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A training that takes longer than these tests."""
    place = tmp_path_factory.mktemp("repository")
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    recipe = small_recipe(load_params(ROOT / "params.yaml"), epochs=1000)
    content["recipes"]["camus"] = recipe.model_dump(mode="json")
    content["tracking"]["system_metrics"] = False
    (place / "params.yaml").write_text(yaml.safe_dump(content))
    write_disks(place, train=160, val=4)
    return place


def start(place: Path, *options: str) -> subprocess.Popen[str]:
    """The training, in the midst of an epoch and alone in its process group."""
    for old in place.glob(f"runs/*/{PROGRESS}"):
        old.unlink()
    driver = subprocess.Popen(
        [*COMMAND, *options],
        cwd=place,
        env=environment(place),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

    def in_the_midst_of_an_epoch() -> bool:
        assert driver.poll() is None, driver.communicate()[1]
        now = [read_progress(path) for path in place.glob("runs/*/")]
        return any(step and 0 < step["step"] < step["steps"] for step in now)

    wait_until(in_the_midst_of_an_epoch, "an epoch")
    return driver


def end(driver: subprocess.Popen[str], place: Path) -> tuple[int, str, str]:
    """Exit code, what was said, and the status of the only MLflow run; no worker is left."""
    family = psutil.Process(driver.pid).children(recursive=True)
    # Without a GCS, Ray's agents look for it for a minute before they end.
    family = [process for process in family if "Agent" not in process.name()]
    said = driver.communicate(timeout=180)[1]
    assert psutil.wait_procs(family, timeout=30)[1] == []
    client = connect(f"sqlite:///{place}/mlflow.db")
    experiment = client.get_experiment_by_name("heartseg-camus").experiment_id
    (run,) = client.search_runs([experiment])
    return driver.returncode, said, run.info.status


@pytest.mark.chaos
def test_a_signal_to_the_whole_group_leaves_a_checkpoint_of_the_very_step(place):
    """As `timeout`, a scheduler or a closed terminal sends it: Ray's processes get it, too."""
    driver = start(place)
    for process in psutil.Process(driver.pid).children(recursive=True):
        process.send_signal(signal.SIGTERM)  # as systemd and Slurm do, by cgroup
    os.killpg(driver.pid, signal.SIGHUP)
    os.killpg(driver.pid, signal.SIGTERM)
    code, said, status = end(driver, place)
    assert (code, status) == (143, "KILLED"), said
    assert "Traceback" not in said
    (folder,) = place.glob("runs/*/")
    saved = checkpoints(folder)[-1].name
    epoch, step = int(saved[:4]), int(saved[5:11])
    assert step > 0, "it did not save in the midst of an epoch"

    # Ctrl-C: at once, with one message. And it had gone on from that very step.
    driver = start(place)
    now = read_progress(folder)
    assert now is not None
    assert (now["epoch"], now["step"]) > (epoch, step)
    os.kill(driver.pid, signal.SIGINT)
    code, said, status = end(driver, place)
    assert (code, status) == (130, "KILLED"), said
    assert len(said.strip().splitlines()) == 1
    assert "the same command" in said


@pytest.mark.chaos
@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_the_death_of_rays_own_processes_ends_the_training_with_a_message(place, name):
    driver = start(place)
    (victim,) = [
        process
        for process in psutil.Process(driver.pid).children(recursive=True)
        if process.name() == name
    ]
    victim.kill()
    code, said, status = end(driver, place)
    assert (code, status) == (2, "FAILED"), said
    assert name.removesuffix("_server") in said.lower()
    assert "has ended" in said
    assert "Traceback" not in said


def test_ctrl_c_without_ray(place):
    driver = start(place, "--in-process")
    os.kill(driver.pid, signal.SIGINT)
    said = driver.communicate(timeout=240)[1]
    assert driver.returncode == 130, said
    assert len(said.strip().splitlines()) == 1
    client = connect(f"sqlite:///{place}/mlflow.db")
    experiment = client.get_experiment_by_name("heartseg-camus").experiment_id
    newest = client.search_runs([experiment], order_by=["attributes.start_time DESC"])[0]
    assert newest.info.status == "KILLED"
