"""The journal of a training: files in the run's folder by which the worker reports its progress.

The worker of rank 0 appends one line per finished epoch to journal.jsonl. The driver reads the file
for its display and sends it to MLflow. The worker never waits for the driver.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from heartseg.errors import catch_full_disk
from heartseg.paths import write_text
from heartseg.text import csv_text

if TYPE_CHECKING:
    from heartseg.data.resident import Resident
    from heartseg.training.loop import Epoch

JOURNAL = "journal.jsonl"
PROGRESS = "progress.json"
PROGRESS_SECONDS = 0.5


class Journal:
    """Writer of the journal, on rank 0.

    Args:
        run_dir: Folder of the run.
        val: Validation images, from which samples are taken.
        overlay_every: Number of epochs between sample predictions; 0: none.
        overlay_cases: Number of images in each sample.
    """

    def __init__(self, run_dir: Path, val: Resident, overlay_every: int, overlay_cases: int):
        self.run_dir = run_dir
        self.val = val
        self.overlay_every = overlay_every
        self.overlay_cases = overlay_cases
        self._next_progress = 0.0

    def write_epoch(self, epoch: Epoch) -> None:
        """Append the metrics of an epoch, and save sample predictions every few epochs.

        Raises:
            InputError: The disk is full or read-only.
        """
        with catch_full_disk(self.run_dir / JOURNAL):
            self._write_epoch(epoch)

    def _write_epoch(self, epoch: Epoch) -> None:
        samples = None
        if self.overlay_every and (epoch.number % self.overlay_every == 0 or epoch.last):
            samples = self._save_samples(epoch)
        line = {"epoch": epoch.number, "time": time.time(), "metrics": epoch.metrics}
        with open(self.run_dir / JOURNAL, "ab+") as stream:
            if stream.tell() and not _ends_in_newline(stream):
                stream.write(b"\n")  # ends a line that a killed writer left incomplete
            stream.write((json.dumps(line | {"samples": samples}) + "\n").encode())

    def write_step(self, epoch: int, step: int, steps: int, loss: Any) -> None:
        """Write the progress within the epoch, at most twice a second.

        Args:
            epoch: Current epoch, from 1.
            step: Number of finished steps.
            steps: Number of steps per epoch.
            loss: Loss of the last step, a scalar tensor or number.
        """
        if time.monotonic() < self._next_progress:
            return
        self._next_progress = time.monotonic() + PROGRESS_SECONDS
        state = {"epoch": epoch, "step": step, "steps": steps, "loss": float(loss)}
        with catch_full_disk(self.run_dir / PROGRESS):
            (self.run_dir / PROGRESS).write_text(json.dumps(state), encoding="utf-8")

    def _save_samples(self, epoch: Epoch) -> str:
        """Save images, masks and predictions; return the path relative to the run's folder."""
        name = f"samples/epoch_{epoch.number:03d}.npz"
        path = self.run_dir / name
        path.parent.mkdir(exist_ok=True)
        predictions = epoch.predict(self.overlay_cases)
        count = len(predictions)
        np.savez_compressed(
            path,
            images=self.val.images[:count, 0].cpu().numpy(),
            masks=self.val.masks[:count].cpu().numpy(),
            predictions=predictions.numpy(),
            case_ids=np.array(self.val.case_ids[:count]),
        )
        return name


def _ends_in_newline(stream: BinaryIO) -> bool:
    stream.seek(-1, os.SEEK_END)
    return stream.read(1) == b"\n"


def read_epochs(run_dir: Path) -> list[dict[str, Any]]:
    """Read the journal in order of epochs. Of a repeated epoch, only the last entry is returned."""
    path = run_dir / JOURNAL
    if not path.exists():
        return []
    entries = (parse_line(line) for line in path.read_bytes().splitlines())
    epochs = {entry["epoch"]: entry for entry in entries if entry is not None}
    return [epochs[number] for number in sorted(epochs)]


def read_progress(run_dir: Path) -> dict[str, Any] | None:
    """Read the progress within the current epoch; None before the first step or during a write."""
    try:
        return json.loads((run_dir / PROGRESS).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Parse a line of the journal; None if a killed writer left it incomplete."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def write_history(run_dir: Path, path: Path) -> None:
    """Write the metrics of the journal to a CSV file with one row per epoch."""
    import pandas as pd

    rows = [{"epoch": entry["epoch"], **entry["metrics"]} for entry in read_epochs(run_dir)]
    write_text(path, csv_text(pd.DataFrame(rows)))
