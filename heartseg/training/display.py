"""A training's progress on the terminal, read from the run's journal."""

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


class Repeated:
    """Calls an action twice a second in a thread, and once more when it is stopped."""

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
    """Shows epoch, loss, Dice, images/s and time left: a bar on a terminal, else lines."""

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
        self._shown = len(read_epochs(run_dir))  # of a resumed run: told when they were made
        self._damaged = set(damaged_checkpoints(run_dir))
        self._repeated = Repeated(self._show)

    def __enter__(self) -> Display:
        self.bar.start()
        if self._shown:
            self.console.print(f"going on after epoch {self._shown}")
        self._repeated.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._repeated.stop()
        self.bar.stop()

    def _show(self) -> None:
        for path in set(damaged_checkpoints(self.run_dir)) - self._damaged:
            self._damaged.add(path)
            self.console.print(f"{path}: checksum wrong; going on from the checkpoint before it")
        entries = read_epochs(self.run_dir)
        for entry in entries[self._shown :]:
            if not self.console.is_terminal:
                self.console.print(epoch_line(entry, self.epochs), highlight=False)
        self._shown = len(entries)
        done = float(entries[-1]["epoch"]) if entries else 0.0
        figures = _figures(entries[-1]["metrics"]) if entries else "starting"
        step = read_progress(self.run_dir)
        if step is not None and step["epoch"] == done + 1:
            done += step["step"] / step["steps"]
            if not entries:
                figures = f"loss {step['loss']:.3f}"
        self.bar.update(self.task, completed=round(done, 2), figures=figures)


def epoch_line(entry: dict[str, Any], epochs: int) -> str:
    """One plain line about a finished epoch."""
    return f"epoch {entry['epoch']:>3}/{epochs}  {_figures(entry['metrics'])}"


def _figures(metrics: dict[str, float]) -> str:
    name, rate = ("AUC", "auc") if "auc" in metrics else ("Dice", "dice_mean")
    return (
        f"loss {metrics['train_loss']:.3f}  val {metrics['val_loss']:.3f}  "
        f"{name} {metrics[rate]:.3f}  {metrics['images_per_second']:.0f} images/s"
    )
