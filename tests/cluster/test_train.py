"""Ray Train: several workers equal one, a lost worker is replaced, errors end the training."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
import torch

from heartseg.data.resident import Resident
from heartseg.errors import InputError
from heartseg.models import build_network
from heartseg.training.checkpoint import load_checkpoint
from heartseg.training.journal import read_epochs
from heartseg.training.loop import fit
from tests.cluster.test_storage import disk, fill
from tests.examples import disks, small_recipe
from tests.processes import children_running

__all__ = ["disk"]

pytestmark = pytest.mark.slow

# Batch norm, no dropout (which differs between workers), and an optimizer that does not blow
# rounding up as AdamW's division by tiny gradients does.
EXACT = {
    "model": {"name": "quicknat", "in_channels": 1, "filters": 4, "kernel": 3,
              "squeeze_excite": "none", "dropout": 0.0, "weights": None},
    "optimizer": "sgd",
    "learning_rate": 0.05,
}  # fmt: skip


@pytest.fixture(scope="module")
def data():
    parts = {}
    for split, count in (("train", 10), ("val", 5)):
        images, masks = disks(count, seed=count)
        names = [f"{split}{i}" for i in range(count)]
        parts[split] = Resident(torch.from_numpy(images), torch.from_numpy(masks), names)
    return parts


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    os.environ.pop("RAY_ADDRESS", None)  # start a local cluster
    from heartseg.cluster import train as ray_train

    ray_train.start_ray(tmp_path_factory.mktemp("logs") / "ray.log")
    yield ray_train
    ray_train.shutdown()


def train_config(params, workers, **changes):
    return params.train.model_copy(update={"workers": workers, "overlay_every": 2, **changes})


def in_this_process(recipe, data):
    # as many threads as a single worker gets
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    states = []
    fit(recipe, data["train"], data["val"], report=lambda epoch: states.append(epoch.state))
    return states[-1]["model"]


def largest_difference(a, b):
    return max((a[key].double() - b[key].double()).abs().max().item() for key in a)


def test_workers_on_ray_equal_this_process(cluster, params, data, tmp_path):
    """The same global batch gives the same result, including the batch statistics.

    Four workers share two cores, and five validation images unevenly.
    """
    recipe = small_recipe(params, **EXACT)
    weights = load_checkpoint(
        cluster.train_on_cluster(recipe, train_config(params, 4), data, tmp_path)
    )["model"]
    expected = in_this_process(recipe, data)
    assert weights.keys() == expected.keys()
    assert largest_difference(weights, expected) < 1e-5
    assert [entry["epoch"] for entry in read_epochs(tmp_path)] == [1, 2, 3]
    assert (tmp_path / "samples" / "epoch_002.npz").exists()


def test_a_killed_worker_is_replaced_and_changes_nothing(cluster, params, data, tmp_path):
    recipe = small_recipe(params, **EXACT, epochs=8)
    killed = []

    def kill_after_the_second_epoch():
        while len(read_epochs(tmp_path)) < 2:
            time.sleep(0.01)
        victim = children_running("RayTrainWorker")[0]
        victim.kill()
        killed.append(victim.pid)

    killer = threading.Thread(target=kill_after_the_second_epoch, daemon=True)
    killer.start()
    end = load_checkpoint(cluster.train_on_cluster(recipe, train_config(params, 2), data, tmp_path))
    assert killed, "the training ended before the kill"
    assert largest_difference(end["model"], in_this_process(recipe, data)) < 1e-5
    assert [entry["epoch"] for entry in read_epochs(tmp_path)] == list(range(1, 9))


def test_paths_of_initial_weights_are_relative_to_the_directory_of_the_command(
    cluster, params, data, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(3)
    trained = build_network(small_recipe(params, **EXACT).model, 4).state_dict()
    torch.save(trained, "trained.pth")
    model = EXACT["model"] | {"weights": "trained.pth"}
    recipe = small_recipe(params, **EXACT | {"model": model, "learning_rate": 1e-9}, epochs=1)
    folder = cluster.train_on_cluster(recipe, train_config(params, 1), data, tmp_path / "run")
    weights = load_checkpoint(folder)["model"]
    learnt = {key: value for key, value in weights.items() if value.is_floating_point()}
    parameters = {key: learnt[key] for key in learnt if "running" not in key}
    assert largest_difference(parameters, trained) < 1e-6


def test_an_input_error_in_a_worker_is_not_retried(cluster, params, data, tmp_path: Path):
    recipe = small_recipe(params, learning_rate=1e30, schedule="constant")
    with pytest.raises(InputError, match="lower learning_rate"):
        cluster.train_on_cluster(recipe, train_config(params, 1), data, tmp_path)


@pytest.mark.chaos
def test_a_full_disk_stops_all_workers_and_the_training_can_be_continued(
    cluster, params, data, tmp_path, disk
):
    recipe = small_recipe(params, **EXACT, epochs=40)
    run_dir = disk / "run"
    run_dir.mkdir()
    ballast = []

    def fill_after_the_second_epoch():
        while len(read_epochs(run_dir)) < 2:
            time.sleep(0.01)
        ballast.append(fill(disk))

    threading.Thread(target=fill_after_the_second_epoch, daemon=True).start()
    with pytest.raises(InputError, match="could not be written: No space left on device"):
        cluster.train_on_cluster(recipe, train_config(params, 2, overlay_every=0), data, run_dir)
    # The journal is written before the checkpoint, so that of the second epoch may be missing.
    assert 1 <= load_checkpoint(run_dir)["next_epoch"] - 1 < 40
    ballast[0].unlink()
    short = recipe.model_copy(update={"epochs": load_checkpoint(run_dir)["next_epoch"]})
    cluster.train_on_cluster(short, train_config(params, 2, overlay_every=0), data, run_dir)
    assert load_checkpoint(run_dir)["last"]


def test_a_batch_that_workers_cannot_share_is_refused_before_they_start(
    cluster, params, data, tmp_path
):
    with pytest.raises(InputError, match="3 workers cannot share batch_size 4"):
        cluster.train_on_cluster(small_recipe(params), train_config(params, 3), data, tmp_path)
    assert not (tmp_path / "ray").exists()
