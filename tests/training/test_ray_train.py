"""Real Ray Train: several workers equal one, a lost one is replaced, a cut-off run goes on."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch

from heartseg.data.resident import Resident
from heartseg.errors import InputError
from heartseg.training.checkpoint import load_checkpoint
from heartseg.training.journal import JOURNAL, read_epochs
from heartseg.training.loop import fit
from tests.examples import disks, small_recipe

pytestmark = pytest.mark.slow

# Batch norm, no dropout (which differs between workers), and an optimizer that does not blow
# rounding up as AdamW's division by tiny gradients does.
EXACT = {
    "model": {"name": "quicknat", "in_channels": 1, "filters": 4, "kernel": 3,
              "squeeze_excite": "none", "dropout": 0.0},
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
    os.environ.pop("RAY_ADDRESS", None)  # a cluster of our own
    from heartseg.training import ray_train

    ray_train.start_ray(tmp_path_factory.mktemp("logs") / "ray.log")
    yield ray_train
    ray_train.shutdown()


def how(params, workers, **changes):
    return params.train.model_copy(update={"workers": workers, "overlay_every": 2, **changes})


def in_this_process(recipe, data):
    torch.set_num_threads(os.cpu_count() or 1)  # as many as a single worker gets
    states = []
    fit(recipe, data["train"], data["val"], report=lambda epoch: states.append(epoch.state))
    return states[-1]["model"]


def largest_difference(a, b):
    return max((a[key].double() - b[key].double()).abs().max().item() for key in a)


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_on_ray_equal_this_process(cluster, params, data, tmp_path, workers):
    """Same global batch, same result: batch statistics are those of the whole batch.

    Four workers share two cores, and five validation images unevenly.
    """
    recipe = small_recipe(params, **EXACT)
    folder = cluster.train_on_ray(recipe, how(params, workers), data, tmp_path)
    weights = load_checkpoint(folder)["model"]
    expected = in_this_process(recipe, data)
    assert weights.keys() == expected.keys()
    assert largest_difference(weights, expected) < 1e-5
    entries = read_epochs(tmp_path)
    assert [entry["epoch"] for entry in entries] == [1, 2, 3]
    assert (tmp_path / "samples" / "epoch_002.npz").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_is_replaced_and_changes_nothing(cluster, params, data, tmp_path, workers):
    recipe = small_recipe(params, **EXACT, epochs=8)
    undisturbed = load_checkpoint(
        cluster.train_on_ray(recipe, how(params, workers), data, tmp_path / "a")
    )
    killed = []

    def kill_after_the_second_epoch():
        while len(read_epochs(tmp_path / "b")) < 2:
            time.sleep(0.01)
        children = psutil.Process().children(recursive=True)
        victims = [p for p in children if "RayTrainWorker" in " ".join(p.cmdline())]
        os.kill(victims[0].pid, signal.SIGKILL)
        killed.append(victims[0].pid)

    killer = threading.Thread(target=kill_after_the_second_epoch, daemon=True)
    (tmp_path / "b").mkdir()
    killer.start()
    disturbed = load_checkpoint(
        cluster.train_on_ray(recipe, how(params, workers), data, tmp_path / "b")
    )
    assert killed, "the training ended before the kill"
    assert largest_difference(disturbed["model"], undisturbed["model"]) == 0
    assert [entry["epoch"] for entry in read_epochs(tmp_path / "b")] == list(range(1, 9))


def test_the_same_folder_goes_on_where_the_run_was_cut_off(cluster, params, data, tmp_path):
    """The shorter recipe's checkpoint stands for a driver that died after two epochs."""
    whole = small_recipe(params, **EXACT, schedule="constant", epochs=4)
    short = whole.model_copy(update={"epochs": 2})
    cut = cluster.train_on_ray(short, how(params, 1), data, tmp_path)
    state = load_checkpoint(cut)
    state["last"] = False
    torch.save(state, cut / "checkpoint.pt")
    end = load_checkpoint(cluster.train_on_ray(whole, how(params, 1), data, tmp_path))
    assert end["next_epoch"] == 5
    assert len((tmp_path / JOURNAL).read_text().splitlines()) == 4  # no epoch was trained twice
    assert largest_difference(end["model"], in_this_process(whole, data)) < 1e-7


def test_a_users_fault_in_a_worker_ends_at_once(cluster, params, data, tmp_path: Path):
    recipe = small_recipe(params, learning_rate=1e30, schedule="constant")
    with pytest.raises(InputError, match="lower learning_rate"):
        cluster.train_on_ray(recipe, how(params, 1), data, tmp_path)


def test_a_batch_that_workers_cannot_share_is_refused_before_they_start(
    cluster, params, data, tmp_path
):
    with pytest.raises(InputError, match="cannot be shared equally by 3 workers"):
        cluster.train_on_ray(small_recipe(params), how(params, 3), data, tmp_path)
    assert not (tmp_path / "ray").exists()
