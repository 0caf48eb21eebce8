"""Images/s of a heartseg epoch over those of the bare forward-backward-step loop.

`make bench` runs it. heartseg: batches from the resident arrays, augmentation, journal, MLflow
(with system metrics) and Ray Train around the loop. Bare: the same network, optimizer, loss, batch
size and threads on one fixed batch, and nothing else. Both in one run, the bare loop before and
after. The second ratio sets the time from epoch to epoch, with validation and checkpoint, against
the bare loop plus bare forward passes of the validation images.
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from heartseg.cluster import train as ray_train
from heartseg.config.params import load_params
from heartseg.data.resident import Resident
from heartseg.models import build_network
from heartseg.models.inference import normalise
from heartseg.models.outputs import output_channels
from heartseg.tracking.client import connect, open_run
from heartseg.tracking.tracker import RunTracker
from heartseg.training.journal import read_epochs
from heartseg.training.losses import build_loss, training_loss
from heartseg.training.optimizer import build_optimizer
from tests.examples import ROOT

TRAIN, VAL, EPOCHS = 480, 48, 4


def images(count: int, size: int) -> Resident:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 1, size, size), dtype=np.uint8)
    masks = rng.integers(0, 4, (count, size, size), dtype=np.uint8)
    return Resident(
        torch.from_numpy(pixels), torch.from_numpy(masks), [str(i) for i in range(count)]
    )


@dataclass(frozen=True)
class Bare:
    """Seconds."""

    steps: float
    validation: float


def bare(recipe, threads) -> Bare:
    torch.set_num_threads(threads)
    network = build_network(recipe.model, output_channels(recipe))
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    network = network.to(memory_format=layout)
    optimizer, loss = build_optimizer(recipe, network), build_loss(recipe)
    batch = images(recipe.batch_size, recipe.input_size)
    x = normalise(batch.images).contiguous(memory_format=layout)

    def step():
        value = training_loss(network(x), batch.masks, loss)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()

    step()
    started = time.perf_counter()
    for _ in range(TRAIN // recipe.batch_size):
        step()
    steps = time.perf_counter() - started
    network.eval()
    held_out = normalise(images(VAL, recipe.input_size).images).contiguous(memory_format=layout)
    started = time.perf_counter()
    with torch.no_grad():
        for part in held_out.split(recipe.eval_batch_size):
            network(part)
    return Bare(steps, time.perf_counter() - started)


def heartseg(recipe, params, folder) -> tuple[list[float], list[float]]:
    """Of each epoch but the first: images/s while training, seconds from epoch to epoch."""
    uri = f"sqlite:///{folder}/mlflow.db"
    run_id = open_run(
        connect(uri), experiment="bench", name="bench", params=recipe.model_dump(mode="json"),
        texts={}, dataset="camus", data_source="random", data_digest="0", tags={},
    )  # fmt: skip
    data = {"train": images(TRAIN, recipe.input_size), "val": images(VAL, recipe.input_size)}
    with RunTracker(run_id, folder, uri, "camus", system_metrics=True):
        ray_train.train_on_cluster(recipe, params.train, data, folder)
    epochs = read_epochs(folder)
    speeds = [epoch["metrics"]["images_per_second"] for epoch in epochs[1:]]
    return speeds, list(np.diff([epoch["time"] for epoch in epochs]))


@pytest.fixture(scope="module")
def _cluster(tmp_path_factory):
    ray_train.start_ray(tmp_path_factory.mktemp("logs") / "ray.log")
    yield
    ray_train.shutdown()


@pytest.mark.usefixtures("_cluster")
@pytest.mark.parametrize("name", ["camus", "camus-unet", "mmode"])
def test_throughput(tmp_path, name):
    params = load_params(ROOT / "params.yaml")
    threads = os.cpu_count()
    changes = {"epochs": EPOCHS, "precision": "fp32", "batch_size": 12, "dataset": "camus"}
    recipe = params.recipe(name).model_copy(update=changes)
    before = bare(recipe, threads)
    speeds, seconds = heartseg(recipe, params, tmp_path)
    after = bare(recipe, threads)
    steps = statistics.mean([before.steps, after.steps])
    validation = statistics.mean([before.validation, after.validation])
    speed, epoch = statistics.median(speeds), statistics.median(seconds)
    print(
        f"\n{recipe.model.name}, {recipe.input_size} px, batch {recipe.batch_size}, "
        f"{threads} threads: heartseg {speed:.1f} images/s, bare {TRAIN / steps:.1f} (before "
        f"{TRAIN / before.steps:.1f}, after {TRAIN / after.steps:.1f}), "
        f"ratio {speed * steps / TRAIN:.3f}; whole epoch {epoch:.2f} s, bare with validation "
        f"{steps + validation:.2f} s, ratio {(steps + validation) / epoch:.3f}"
    )
