"""Requests a second and latency of `heartseg serve` at 1, 8 and 32 clients, with and without
batching; every client sends an apical image of usual size (549 x 778, PNG) again and again.

    python -m tests.bench.bench_serve [--seconds 10] [--recipe camus]
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import requests
from PIL import Image

from heartseg.config.params import load_params
from tests.examples import ROOT
from tests.tracking.stores import free_port, new_run

CLIENTS = (1, 8, 32)
SETTINGS = {"batches of up to 8": "8", "one by one": "1"}
NAME = "heartseg-camus"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--recipe", default="camus")
    options = parser.parse_args()
    content = apical_image()
    rates: dict[tuple[str, int], float] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{folder}/mlflow.db"
        register(store, options.recipe)
        print(f"{'':<20} clients  requests/s  p50 ms  p99 ms  images per batch")
        for name, batch_size in SETTINGS.items():
            port = free_port()
            url = f"http://127.0.0.1:{port}"
            process = start(store, port, batch_size, Path(folder))
            try:
                load(url, content, 2, 2.0)  # warm up
                for clients in CLIENTS:
                    before = batches(url)
                    seconds, took = load(url, content, clients, options.seconds)
                    rates[name, clients] = len(seconds) / took
                    p50, p99 = 1000 * np.percentile(seconds, [50, 99])
                    count, total = (b - a for a, b in zip(before, batches(url), strict=True))
                    print(
                        f"{name:<20} {clients:>7}  {rates[name, clients]:>10.1f}  {p50:>6.0f}  "
                        f"{p99:>6.0f}  {total / count:>16.1f}",
                        flush=True,
                    )
            finally:
                process.terminate()
                process.wait()
    first, second = SETTINGS
    for clients in CLIENTS:
        ratio = rates[first, clients] / rates[second, clients]
        print(f"{clients} client(s): with batching {ratio:.2f} times the requests a second")


def apical_image() -> bytes:
    """A PNG with speckle, (549, 778)."""
    generator = np.random.default_rng(0)
    clouds = Image.fromarray(generator.integers(0, 255, (12, 16), np.uint8))
    smooth = np.array(clouds.resize((778, 549), Image.Resampling.BICUBIC), float)
    speckle = generator.rayleigh(0.6, smooth.shape)
    pixels = np.clip(smooth * speckle, 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def register(store: str, recipe_name: str) -> None:
    """An untrained network as champion: a trained one takes the same time."""
    import mlflow

    from heartseg.datasets import DATASETS
    from heartseg.models import build_network
    from heartseg.models.inference import PackagedModel, log_packaged
    from heartseg.tracking import registry

    recipe = load_params(ROOT / "params.yaml").recipe(recipe_name)
    client = registry.use_store(store)
    run_id = new_run(store)
    network = build_network(recipe.model, len(DATASETS[recipe.dataset].labels)).eval()
    channels = recipe.model.in_channels
    metadata = {"dataset": recipe.dataset, "recipe": {"model": {"in_channels": channels}}}
    packaged = PackagedModel(network, recipe.input_size).eval()
    info = log_packaged(packaged, channels, name=NAME, run_id=run_id, metadata=metadata)
    version = registry.register_version(client, NAME, run_id, info.model_uri, {})
    client.set_registered_model_alias(NAME, "champion", version)
    mlflow.set_tracking_uri(None)


def start(store: str, port: int, batch_size: str, folder: Path) -> subprocess.Popen[str]:
    """The command, answering already."""
    command = [sys.executable, "-m", "heartseg.serve", f"models:/{NAME}@champion"]
    command += ["--port", str(port), "--batch-size", batch_size]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OMP")}
    environment |= {"MLFLOW_TRACKING_URI": store, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    if "http://" not in process.stdout.readline():
        raise RuntimeError("the service did not start")
    return process


def load(url: str, content: bytes, clients: int, seconds: float) -> tuple[list[float], float]:
    """Seconds of each request, and from the first one's start to the last one's end."""
    found: list[float] = []
    start = time.perf_counter()

    def client() -> None:
        with requests.Session() as session:
            while (begin := time.perf_counter()) < start + seconds:
                session.post(f"{url}/labels", files={"file": ("x.png", content)}).raise_for_status()
                found.append(time.perf_counter() - begin)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found, time.perf_counter() - start


def batches(url: str) -> tuple[float, float]:
    """Images so far, and the sum over them of the batch that each was in."""
    lines = requests.get(f"{url}/metrics", timeout=30).text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return float(values["heartseg_batch_size_count"]), float(values["heartseg_batch_size_sum"])


if __name__ == "__main__":
    main()
