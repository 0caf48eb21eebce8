"""Seconds from `heartseg train` to the first step: with Ray Train over in this process.

`make bench` runs it. Both are the same command on the same data, the second with --in-process,
twice each in turn. The parts of the Ray start are read from the times of the files that the
run leaves, so nothing is instrumented.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from tests.clones import environment, set_params
from tests.examples import ROOT, write_disks

REPEATS = 2
MARKS = {
    "Python, params.yaml, digest of the data": "ray.log",
    "Ray's processes, torch, images, MLflow run": "run.json",
    "Ray Train's controller (imports torch)": "ray/.validate_storage_marker",
    "worker (imports torch), network, first step": "progress.json",
}
"""What has happened by the time that a file of the run appears."""


def repository(place: Path) -> Path:
    (place / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    set_params(place, {"recipes.camus.epochs": 1, "tracking.system_metrics": False})
    write_disks(place, train=24, val=4, size=128)
    return place


def start(place: Path, *options: str) -> tuple[float, dict[str, float]]:
    """Seconds to the first step, and from the command to each file of the run."""
    started = time.time()
    command = [sys.executable, "-m", "heartseg.train", "camus", *options]
    process = subprocess.Popen(
        command, cwd=place, env=environment(place), stdout=subprocess.DEVNULL
    )
    while not (steps := [p for p in place.glob("runs/*/progress.json") if p.stat().st_size]):
        assert process.poll() is None, "the training ended before its first step"
        time.sleep(0.01)
    seconds = steps[0].stat().st_mtime - started
    folder = steps[0].parent
    marks = {
        name: (folder / name).stat().st_mtime - started
        for name in MARKS.values()
        if (folder / name).exists()
    }
    process.wait()
    steps[0].unlink()
    return seconds, marks


def test_startup(tmp_path):
    place = repository(tmp_path)
    start(place, "--in-process")  # makes mlflow.db and fills the disk cache
    ray, here = [], []
    for _ in range(REPEATS):
        seconds, marks = start(place)
        ray.append(seconds)
        here.append(start(place, "--in-process")[0])
    print(
        f"\nfrom command to first step: Ray Train {np.round(ray, 1)} s, "
        f"in this process {np.round(here, 1)} s, "
        f"ratio {statistics.median(ray) / statistics.median(here):.2f}"
    )
    for what, name in MARKS.items():
        if name in marks:
            print(f"  {what}: until {marks[name]:.1f} s")
