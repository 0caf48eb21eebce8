"""A training on a full or read-only disk: the error is reported and nothing is lost.

On a small tmpfs of its own, which takes a process that may mount.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from heartseg.data.resident import Resident
from heartseg.errors import InputError
from heartseg.tracking import tracker
from heartseg.training.checkpoint import checkpoints, load_checkpoint
from heartseg.training.in_process import train_in_process
from heartseg.training.journal import read_epochs
from tests.examples import disks, small_recipe
from tests.tracking.stores import (
    _cold_store,
    _own_environment,
    journal_line,
    new_run,
    points,
    store,
)

pytestmark = [pytest.mark.slow, pytest.mark.chaos]

__all__ = ["_cold_store", "_own_environment", "store"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(place)],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this process may not mount a file system: {error}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def remount(disk: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Fill a disk, and return the file that does."""
    ballast = disk / "ballast"
    with open(ballast, "wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(4096))
        except OSError:
            return ballast


def data() -> dict[str, Resident]:
    parts = {}
    for split, count in (("train", 8), ("val", 4)):
        images, masks = disks(count, seed=count)
        names = [f"{split}{i}" for i in range(count)]
        parts[split] = Resident(torch.from_numpy(images), torch.from_numpy(masks), names)
    return parts


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_a_training_can_be_continued_after_its_disk_failed(params, disk, tmp_path, fault):
    recipe = small_recipe(params, epochs=4)
    train = params.train.model_copy(update={"overlay_every": 0})
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    undisturbed = load_checkpoint(train_in_process(recipe, train, data(), elsewhere))

    def break_disk(epoch):
        if epoch.number == 2:
            fill(disk) if fault == "full" else remount(disk, "ro")

    run_dir = disk / "run"
    run_dir.mkdir()
    said = r"run/.* could not be written: (No space left|Read-only).*last checkpoint"
    with pytest.raises(InputError, match=said):
        train_in_process(recipe, train, data(), run_dir, after_epoch=break_disk)
    before = [path.name for path in checkpoints(run_dir)]
    assert before[-1].startswith("0003-000000.")
    assert load_checkpoint(run_dir)["next_epoch"] == 3
    assert not list((run_dir / "checkpoints").glob(".*"))

    remount(disk, "rw,size=16m")
    again = load_checkpoint(train_in_process(recipe, train, data(), run_dir))
    assert all(torch.equal(again["model"][k], undisturbed["model"][k]) for k in again["model"])
    assert [entry["epoch"] for entry in read_epochs(run_dir)] == [1, 2, 3, 4]


def test_a_full_database_loses_no_points(params, disk, tmp_path, store, monkeypatch):
    """The training ends well, and its points are sent when SQLite's disk has room again."""
    run_id = new_run(store)
    shutil.copy(tmp_path / "mlflow.db", disk / "mlflow.db")
    shutil.copytree(tmp_path / "mlartifacts", disk / "mlartifacts")
    uri = f"sqlite:///{disk / 'mlflow.db'}"
    ballast = fill(disk)
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    lines = [journal_line(epoch) for epoch in range(300)]  # more than the database can hold
    (run_dir / "journal.jsonl").write_text("".join(lines))
    monkeypatch.setattr(tracker, "CLOSE_S", 1.0)
    assert not tracker.RunTracker(run_id, run_dir, uri, "camus").close("FINISHED")
    ballast.unlink()
    monkeypatch.setattr(tracker, "CLOSE_S", 60.0)
    assert tracker.RunTracker(run_id, run_dir, uri, "camus").close("FINISHED")
    assert [step for step, _, _ in points(uri, run_id)] == list(range(300))
