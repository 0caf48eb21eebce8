"""Progress of a training on the terminal, read from the run's journal."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from heartseg.training.journal import read_epochs, read_progress
from heartseg.training.run_dir import damaged_checkpoints

POLL_SECONDS = 0.5


class PeriodicCall:
    """Call a function twice a second in a thread, and a last time on `stop`."""

    def __init__(self, action: Callable[[], None]):
        self.action = action
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self.action()
        self.action()


class Display:
    """Show epoch, loss, Dice, images/s and remaining time.

    A terminal shows a progress bar; other outputs get a line per epoch.

    Args:
        run_dir: Folder of the run.
        title: Name of the training.
        epochs: Total number of epochs.
        console: Where to print; by default the standard output.
    """

    def __init__(self, run_dir: Path, title: str, epochs: int, console: Console | None = None):
        self.run_dir = run_dir
        self.epochs = epochs
        self.console = console or Console()
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task(f"{title}: epoch", total=epochs, figures="starting")
        self._shown = len(read_epochs(run_dir))  # these were shown before the run was interrupted
        self._damaged = set(damaged_checkpoints(run_dir))
        self._updates = PeriodicCall(self._show)

    def __enter__(self) -> Display:
        self.bar.start()
        if self._shown:
            self.console.print(f"resuming after epoch {self._shown}")
        self._updates.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._updates.stop()
        self.bar.stop()

    def _show(self) -> None:
        for path in set(damaged_checkpoints(self.run_dir)) - self._damaged:
            self._damaged.add(path)
            self.console.print(f"{path}: wrong checksum; resuming from the previous checkpoint")
        entries = read_epochs(self.run_dir)
        for entry in entries[self._shown :]:
            if not self.console.is_terminal:
                self.console.print(epoch_line(entry, self.epochs), highlight=False)
        self._shown = len(entries)
        done = float(entries[-1]["epoch"]) if entries else 0.0
        figures = _format_metrics(entries[-1]["metrics"]) if entries else "starting"
        step = read_progress(self.run_dir)
        if step is not None and step["epoch"] == done + 1:
            done += step["step"] / step["steps"]
            if not entries:
                figures = f"loss {step['loss']:.3f}"
        self.bar.update(self.task, completed=round(done, 2), figures=figures)


def epoch_line(entry: dict[str, Any], epochs: int) -> str:
    """Return a line about a finished epoch."""
    return f"epoch {entry['epoch']:>3}/{epochs}  {_format_metrics(entry['metrics'])}"


def _format_metrics(metrics: dict[str, float]) -> str:
    name, rate = ("AUC", "auc") if "auc" in metrics else ("Dice", "dice_mean")
    return (
        f"loss {metrics['train_loss']:.3f}  val {metrics['val_loss']:.3f}  "
        f"{name} {metrics[rate]:.3f}  {metrics['images_per_second']:.0f} images/s"
    )
