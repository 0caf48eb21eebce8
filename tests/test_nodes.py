"""Several nodes: a training and a sweep over them, and nodes that are lost and come back.

On machines of their own (network namespaces) where those are permitted, else as processes on this
one. One cluster and one tracking server for all tests, which leave it whole.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from heartseg.config.params import load_params
from heartseg.data.resident import load_resident
from heartseg.tracking.client import connect
from heartseg.training.checkpoint import checkpoints
from heartseg.training.journal import read_epochs
from heartseg.training.loop import fit
from tests.examples import ROOT, small_recipe, write_disks
from tests.nodes import HEAD, Nodes, namespaces_permitted
from tests.processes import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(1800)]

WORKERS = (2, 3)  # machines
# Without dropout, which differs between workers, and with an optimizer that does not blow rounding
# up; at a constant rate the first epochs are those of a shorter training.
RECIPE = {
    "model": {"name": "quicknat", "in_channels": 1, "filters": 4, "kernel": 3,
              "squeeze_excite": "none", "dropout": 0.0, "weights": None},
    "optimizer": "sgd",
    "learning_rate": 0.02,
    "schedule": "constant",
    "epochs": 900,
}  # fmt: skip
SWEEP = {
    "recipe": "camus",
    "metric": "dice_mean",
    "mode": "max",
    "space": {"learning_rate": {"loguniform": [0.001, 0.1]}},
    "sampler": {"name": "random"},
    "pruner": {"name": "none"},
    "trials": 4,
    "hours": None,
    "resources": {"workers": 1, "cpus": 1, "gpus": 0},
    "initial_points": [],
    "seed": 0,
    "register": False,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("repository")
    params = load_params(ROOT / "params.yaml")
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["recipes"] = {
        "camus": small_recipe(params, **RECIPE).model_dump(mode="json"),
        "short": small_recipe(params, **RECIPE | {"epochs": 12}).model_dump(mode="json"),
    }
    content["pipeline"] = {"camus": "camus"}
    content["tracking"]["system_metrics"] = False
    content["train"] |= {"workers": {"min": 1, "max": 2, "look_every_s": 3}, "overlay_every": 0}
    (place / "params.yaml").write_text(yaml.safe_dump(content))
    (place / "sweeps").mkdir()
    (place / "sweeps/small.yaml").write_text(yaml.safe_dump(SWEEP | {"recipe": "short"}))
    write_disks(place, train=80, val=4)
    return place


@pytest.fixture(scope="module")
def nodes(place: Path) -> Iterator[Nodes]:
    nodes = Nodes(place, namespaces_permitted())
    try:
        nodes.add_switch()
        nodes.start_tracking()
        nodes.add_machine(HEAD)
        nodes.start_ray(HEAD)
        nodes.await_ray(HEAD)
        for number in WORKERS:
            nodes.add_machine(number)
            nodes.start_ray(number)
        nodes.await_ray(*WORKERS)
        yield nodes
    finally:
        nodes.close()


@pytest.fixture(scope="module")
def tracking(nodes: Nodes) -> str:
    return nodes.await_tracking()


def workers_now(run_dir: Path, after: int = 0) -> list[float]:
    """Number of workers of each epoch after that one, in the order of the journal."""
    return [e["metrics"]["workers"] for e in read_epochs(run_dir) if e["epoch"] > after]


def step_of(checkpoint: Path) -> int:
    """Of its epoch; 0 after the last one of the epoch before."""
    return int(checkpoint.name[5:11])


def last_epoch(run_dir: Path) -> int:
    return max((entry["epoch"] for entry in read_epochs(run_dir)), default=0)


def lines(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "journal.jsonl").read_text().splitlines()]


def points(client: Any, run_id: str) -> list[int]:
    return [point.step for point in client.get_metric_history(run_id, "val_loss")]


def test_elastic_training_over_a_partition_and_a_notice(nodes: Nodes, place: Path, tracking: str):
    log = nodes.folder / "train.log"
    driver = nodes.drive("train", "camus", log=log, MLFLOW_TRACKING_URI=tracking)

    def run_dir() -> Path:
        assert driver.poll() is None, log.read_text()[-3000:]
        return next((place / "runs").glob("camus-*/"), place)

    wait_until(lambda: 2 in workers_now(run_dir()), "an epoch of both nodes", 400)
    lost = WORKERS[1]
    wait_until(lambda: last_epoch(run_dir()) > 1, "another epoch", 200)

    since = time.monotonic()
    before = last_epoch(run_dir())
    if nodes.apart:
        nodes.cut_link(lost)
    else:
        nodes.kill(lost)
    wait_until(
        lambda: 1 in workers_now(run_dir(), before), "an epoch of the node that is left", 180
    )
    print(f"\nnode lost: {time.monotonic() - since:.1f} s to the next epoch")

    since = time.monotonic()
    if nodes.apart:
        nodes.mend_link(lost)
        ended = nodes.processes[lost]
        wait_until(lambda: ended.poll() is not None, "the node that was given up ends", 200)
        nodes.kill(lost)
    nodes.start_ray(lost)
    nodes.await_ray(lost)
    before = last_epoch(run_dir())
    wait_until(lambda: 2 in workers_now(run_dir(), before), "an epoch of both nodes again", 400)
    print(f"node back: {time.monotonic() - since:.1f} s to an epoch of both")

    # A notice for a worker's node: states of the midst of an epoch until it is gone.
    assert not any(step_of(path) for path in checkpoints(run_dir()))
    since = time.monotonic()
    nodes.drain(lost, 60)
    wait_until(lambda: any(step_of(path) for path in checkpoints(run_dir())), "a checkpoint", 60)
    print(f"ray drain-node: {time.monotonic() - since:.1f} s to a checkpoint within an epoch")

    since = time.monotonic()
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(120) == 143, log.read_text()[-3000:]
    print(f"SIGTERM: {time.monotonic() - since:.1f} s to the end")

    nodes.kill(lost)  # as the notice said
    nodes.start_ray(lost)

    folder = next((place / "runs").glob("camus-*/"))
    told = lines(folder)
    numbers = [entry["epoch"] for entry in read_epochs(folder)]
    assert numbers == list(range(1, numbers[-1] + 1))
    assert len(told) - len(numbers) <= 2, "more than the epoch under way was done twice"
    newest = checkpoints(folder)[-1]
    assert step_of(newest) > 0, "SIGTERM did not save in the midst of an epoch"

    # One result, not two: that of one process that nothing disturbed, but for rounding.
    recipe = load_params(place / "params.yaml").recipe("camus")
    recipe = recipe.model_copy(update={"epochs": numbers[-1]})
    prepared = place / "data/prepared/camus.parquet"
    data = [load_resident(prepared, split, recipe.input_size) for split in ("train", "val")]
    undisturbed: list[float] = []
    fit(recipe, *data, report=lambda epoch: undisturbed.append(epoch.metrics["train_loss"]))
    losses = [entry["metrics"]["train_loss"] for entry in read_epochs(folder)]
    assert losses == pytest.approx(undisturbed, abs=2e-3)

    client = connect(nodes.database)
    (run,) = client.search_runs([client.get_experiment_by_name("heartseg-camus").experiment_id])
    assert run.info.status == "KILLED"
    assert points(client, run.info.run_id) == numbers


def test_a_sweep_goes_on_without_a_node(nodes: Nodes, place: Path, tracking: str):
    nodes.await_ray(*WORKERS)
    log = nodes.folder / "sweep.log"
    driver = nodes.drive("sweep", "sweeps/small.yaml", log=log, MLFLOW_TRACKING_URI=tracking)
    trials = place / "runs/sweeps/small/trials"

    def under_way() -> bool:
        assert driver.poll() is None, log.read_text()[-3000:]
        return sum(2 <= last_epoch(folder) < 9 for folder in trials.glob("*/")) == 2

    wait_until(under_way, "two trials at once", 400)
    begun = {folder.name: last_epoch(folder) for folder in trials.glob("*/")}
    nodes.kill(WORKERS[1])
    assert driver.wait(600) == 0, log.read_text()[-3000:]
    nodes.start_ray(WORKERS[1])
    nodes.await_ray(WORKERS[1])

    for number in range(SWEEP["trials"]):  # type: ignore[call-overload]
        folder = trials / f"{number:03d}"
        assert [e["epoch"] for e in read_epochs(folder)] == list(range(1, 13))
        repeated = len(lines(folder)) - 12
        assert repeated <= 1, f"{folder} after epoch {begun.get(folder.name)}"
    client = connect(nodes.database)
    runs = client.search_runs([client.get_experiment_by_name("heartseg-camus").experiment_id])
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(children) == SWEEP["trials"]
    for child in children:
        assert child.info.status == "FINISHED"
        assert points(client, child.info.run_id) == list(range(1, 13))
