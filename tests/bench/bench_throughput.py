"""Images/s of a heartseg epoch over those of the bare forward-backward-step loop.

`make bench` runs it. heartseg: augmentation, validation, checkpoint, journal, MLflow and Ray Train
around the loop. Bare: the same network, optimizer, loss, batch and threads on one fixed batch,
with the forward passes of one validation, and nothing else. Both in one run, the bare loop before
and after.
"""

from __future__ import annotations

import os
import statistics
import time

import numpy as np
import torch

from heartseg.config import load_params
from heartseg.data.resident import Resident
from heartseg.models import build_network
from heartseg.models.outputs import output_channels
from heartseg.models.packaged import normalise
from heartseg.tracking.mlflow import connect, open_run
from heartseg.tracking.tracker import RunTracker
from heartseg.training import ray_train
from heartseg.training.journal import read_epochs
from heartseg.training.losses import build_loss, training_loss
from heartseg.training.optimizer import build_optimizer
from tests.examples import ROOT

TRAIN, VAL, EPOCHS = 480, 48, 4


def images(count: int, size: int) -> Resident:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 1, size, size), dtype=np.uint8)
    masks = rng.integers(0, 4, (count, size, size), dtype=np.uint8)
    return Resident.from_numpy(pixels, masks, [str(i) for i in range(count)])


def bare_epoch_seconds(recipe, threads):
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
    network.eval()
    held_out = normalise(images(VAL, recipe.input_size).images).contiguous(memory_format=layout)
    with torch.no_grad():
        for part in held_out.split(recipe.eval_batch_size):
            network(part)
    return time.perf_counter() - started


def heartseg_epoch_seconds(recipe, params, tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    run_id = open_run(
        connect(uri), experiment="bench", name="bench", recipe=recipe.model_dump(mode="json"),
        dataset="camus", data_source="random", data_digest="0", tags={},
    )  # fmt: skip
    data = {"train": images(TRAIN, recipe.input_size), "val": images(VAL, recipe.input_size)}
    ray_train.start_ray(tmp_path / "ray.log")
    try:
        with RunTracker(run_id, tmp_path, uri, "camus", system_metrics=True):
            ray_train.train_on_ray(recipe, params.train, data, tmp_path)
    finally:
        ray_train.shutdown()
    times = [entry["time"] for entry in read_epochs(tmp_path)]
    return np.diff(times)  # from epoch to epoch; the first one, with start-up, is left out


def test_throughput(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = load_params(ROOT / "params.yaml")
    threads = os.cpu_count()
    for name in ("deeplabv3", "unet"):
        changes = {"epochs": EPOCHS, "precision": "fp32"}
        recipe = params.recipe("camus" if name == "deeplabv3" else "camus-unet")
        recipe = recipe.model_copy(update=changes)
        before = bare_epoch_seconds(recipe, threads)
        run_dir = tmp_path / name
        run_dir.mkdir()
        ours = heartseg_epoch_seconds(recipe, params, run_dir)
        after = bare_epoch_seconds(recipe, threads)
        bare = statistics.mean([before, after])
        mine = statistics.median(ours)
        print(
            f"\n{name} {recipe.input_size} px, batch {recipe.batch_size}, {threads} threads: "
            f"heartseg {TRAIN / mine:.1f} images/s (epochs {np.round(ours, 2)} s), "
            f"bare {TRAIN / bare:.1f} images/s ({before:.2f}, {after:.2f} s), "
            f"ratio {bare / mine:.3f}"
        )


def test_resident_memory():
    """Bytes that the process grows by over N * S * S * (C + 1)."""
    import psutil

    count, size = 2000, 256
    process = psutil.Process()
    before = process.memory_info().rss
    held = images(count, size)
    grown = process.memory_info().rss - before
    formula = count * size * size * 2
    print(
        f"\nresident arrays of {count} images at {size} px: {held.nbytes / 1e6:.1f} MB held, "
        f"process grew by {grown / 1e6:.1f} MB, formula {formula / 1e6:.1f} MB, "
        f"ratio held/formula {held.nbytes / formula:.3f}, grown/formula {grown / formula:.3f}"
    )
