"""What faults, workers and the tracker cost.

Run: pytest -s tests/bench/bench_faults.py
"""

from __future__ import annotations

import http.client
import http.server
import itertools
import os
import statistics
import threading
import time
from pathlib import Path

import pytest
import torch

from heartseg.data.resident import Resident
from heartseg.tracking.tracker import RunTracker
from heartseg.training.in_process import train_in_process
from heartseg.training.journal import read_epochs, read_progress
from tests.examples import disks, small_recipe
from tests.processes import children_running
from tests.tracking.stores import Server, _cold_store, _own_environment, free_port, new_run, server

__all__ = ["_cold_store", "_own_environment", "server"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

# A step that is worth sharing: 64 x 64 pixels, 16 images, 16 filters.
RECIPE = {
    "model": {"name": "quicknat", "in_channels": 1, "filters": 16, "kernel": 3,
              "squeeze_excite": "none", "dropout": 0.0, "weights": None},
    "input_size": 64,
    "batch_size": 16,
}  # fmt: skip


def data(train: int, size: int) -> dict[str, Resident]:
    parts = {}
    for split, count in (("train", train), ("val", 4)):
        images, masks = disks(count, size, seed=count)
        names = [f"{split}{i}" for i in range(count)]
        parts[split] = Resident(torch.from_numpy(images), torch.from_numpy(masks), names)
    return parts


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory):
    os.environ.pop("RAY_ADDRESS", None)
    from heartseg.cluster import train as ray_train

    ray_train.start_ray(tmp_path_factory.mktemp("logs") / "ray.log")
    yield ray_train
    ray_train.shutdown()


def speed(run_dir: Path) -> float:
    """Images per second, the first epoch left out."""
    return statistics.median(e["metrics"]["images_per_second"] for e in read_epochs(run_dir)[1:])


def test_two_workers_against_one(cluster, params, tmp_path):
    recipe = small_recipe(params, **RECIPE, epochs=5)
    train_config = params.train.model_copy(update={"overlay_every": 0})
    images = cluster.put(data(480, 64))
    speeds = []
    for workers in (1, 2, 1, 2):
        run_dir = tmp_path / f"run{len(speeds)}"
        run_dir.mkdir()
        cluster.train_on_ray(
            recipe, train_config, images, run_dir, workers=workers, resources={"CPU": 1.0}
        )
        speeds.append(speed(run_dir))
    one, two = max(speeds[::2]), max(speeds[1::2])
    print(
        f"\n1 worker {one:.0f} images/s, 2 workers {two:.0f} (one thread each): "
        f"{two / one / 2:.0%} of ideal"
    )


def test_a_workers_death(cluster, params, tmp_path):
    recipe = small_recipe(params, **RECIPE, epochs=3)
    train_config = params.train.model_copy(update={"overlay_every": 0})
    images = cluster.put(data(1600, 64))
    seen = []

    def kill():
        while not read_epochs(tmp_path) or (read_progress(tmp_path) or {"epoch": 0})["epoch"] < 2:
            time.sleep(0.02)
        while (now := read_progress(tmp_path)) is None or now["step"] < 0.5 * now["steps"]:
            time.sleep(0.02)
        children_running("RayTrainWorker")[0].kill()
        since, stamp = time.time(), (tmp_path / "progress.json").stat().st_mtime
        time.sleep(1)
        while (tmp_path / "progress.json").stat().st_mtime <= max(stamp, since):
            time.sleep(0.02)
        seen.extend([time.time() - since, now["step"], now["steps"]])

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    cluster.train_on_ray(recipe, train_config, images, tmp_path, workers=2, resources={"CPU": 1.0})
    killer.join(5)
    print(
        f"\na worker's death: {seen[0]:.1f} s to the next step, "
        f"{seen[1]} of an epoch's {seen[2]} steps done again"
    )


class _Slow(http.server.BaseHTTPRequestHandler):
    """Hands each request on, 200 ms late."""

    protocol_version = "HTTP/1.1"
    port = 0

    def _pass_on(self) -> None:
        time.sleep(0.2)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        link = http.client.HTTPConnection("127.0.0.1", self.port)
        link.request(self.command, self.path, body, dict(self.headers))
        answer = link.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _pass_on

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


def test_the_trackers_cost(server: Server, params, tmp_path, monkeypatch):
    """Seconds per epoch with the server well, slow and down, against no tracker at all."""
    torch.set_num_threads(1)
    _Slow.port = server.port
    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Slow)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    stores = {
        "none": None,
        "well": server.uri,
        "slow (200 ms)": f"http://127.0.0.1:{proxy.server_port}",
        "down": f"http://127.0.0.1:{free_port()}",
    }
    recipe = small_recipe(params, **RECIPE, epochs=6)
    train_config = params.train.model_copy(update={"overlay_every": 0})
    images = data(96, 64)
    seconds: dict[str, list[float]] = {name: [] for name in stores}
    run_id = new_run(server.uri)
    for turn in range(2):
        for name, uri in stores.items():
            run_dir = tmp_path / f"{name} {turn}"
            run_dir.mkdir()
            times = [time.perf_counter()]
            tracker = None if uri is None else RunTracker(run_id, run_dir, uri, "camus")
            if tracker is not None:
                tracker.start()

            def note(epoch, times=times):
                times.append(time.perf_counter())

            train_in_process(recipe, train_config, images, run_dir, after_epoch=note)
            if tracker is not None:
                monkeypatch.setattr("heartseg.tracking.tracker.CLOSE_S", 1.0)
                tracker.close("FINISHED")
            seconds[name] += [after - before for before, after in itertools.pairwise(times[1:])]
    proxy.shutdown()
    alone = statistics.median(seconds["none"])
    print()
    for name, taken in seconds.items():
        middle = statistics.median(taken)
        print(f"tracker {name}: {middle:.3f} s per epoch, {middle / alone - 1:+.1%}")
