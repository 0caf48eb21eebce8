"""The folder of a training run, by which a run that was cut off is found again."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from heartseg.config.recipe import Recipe
from heartseg.errors import InputError, Stopped
from heartseg.paths import write_text

RUNS = "runs"
STATE = "run.json"
STOP = "stop"
"""A file of this name in the run's folder ends the training, with a checkpoint."""
STOP_SECONDS = 0.5
CHECKPOINTS = "checkpoints"
DAMAGED = ".damaged"
"""Appended to the name of a checkpoint whose content is not what was written."""
PACKAGE = Path(__file__).parents[1]
CODE = ("data", "datasets", "metrics", "models", "training", "cluster")
"""Rooms whose code decides about a training's result."""


class InUse(InputError):
    """Another process works in the folder."""


@contextmanager
def open_run_dir(
    runs: Path, name: str, recipe: Recipe, data_digest: str, engine: str
) -> Iterator[Path]:
    """The folder for training `recipe` on the data of that digest by the present code.

    The same recipe, data, weights to start from and code find the folder of the run that was cut
    off. A finished one is emptied, since asking again for a finished training means to do it again.

    Args:
        runs: folder of all runs, absolute.
        name: of the recipe.
        recipe: what is trained.
        data_digest: of the prepared dataset.
        engine: what runs it; each keeps its checkpoints in its own way.

    Raises:
        InputError: another process works in that folder.
    """
    made_of = what_makes(recipe, data_digest) | {"engine": engine}
    key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
    folder = runs / f"{name}-{key[:10]}"
    runs.mkdir(parents=True, exist_ok=True)
    with hold(folder):
        if read_state(folder).get("finished"):
            shutil.rmtree(folder)
        folder.mkdir(exist_ok=True)
        update_state(folder, recipe_name=name, made_of=made_of)
        yield folder


def what_makes(recipe: Recipe, data_digest: str) -> dict[str, Any]:
    """All that decides about the result of a training, whatever runs it.

    The files of weights that the recipe starts from count by their content.
    """
    from heartseg.data.prepared import file_digest  # imports pandas, which not all need here

    return {
        "recipe": recipe.model_dump(mode="json"),
        "data": data_digest,
        "weights": {str(path): file_digest(path) for path in recipe.weight_files()},
        "code": code_digest(),
    }


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep other processes off a folder, which need not exist yet.

    Raises:
        InUse: another process holds it.
    """
    with open(folder.parent / f"{folder.name}.lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUse(
                f"another process works on this very run in {folder}; wait for it or stop it"
            ) from None
        yield


@contextmanager
def stopped_by_signals(folder: Path) -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the training in `folder` with a checkpoint after its next step.

    Schedulers announce the end of a job by the former; the latter comes when a terminal is closed,
    and stays ignored under nohup.
    """
    (folder / STOP).unlink(missing_ok=True)
    with handling_end(lambda number, frame: (folder / STOP).touch()):
        yield


@contextmanager
def handling_end(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Handle SIGTERM and SIGHUP by `handler`; the latter stays ignored where it is."""
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def stop_now(number: int, frame: FrameType | None) -> None:
    """A handler for `handling_end` that ends the command where it is."""
    raise Stopped


def code_files() -> dict[str, str]:
    """MD5 of each file of the code that decides about a training's result, by path."""
    paths = sorted(path for room in CODE for path in (PACKAGE / room).rglob("*.py"))
    return {
        path.relative_to(PACKAGE).as_posix(): hashlib.md5(
            path.read_bytes(), usedforsecurity=False
        ).hexdigest()
        for path in paths
    }


def code_digest() -> str:
    """One MD5 of `code_files`."""
    return hashlib.md5(json.dumps(code_files()).encode(), usedforsecurity=False).hexdigest()


def read_state(folder: Path) -> dict[str, Any]:
    """What is known of the run: its MLflow run id, and whether it is finished."""
    path = folder / STATE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def update_state(folder: Path, **values: Any) -> None:
    """Add to the run's state, whole or not at all."""
    write_text(folder / STATE, json.dumps(read_state(folder) | values, indent=1))


def clear_checkpoints(folder: Path, *, keep: int) -> None:
    """Delete the checkpoints of a training that has ended, but for the newest `keep` of them."""
    whole = sorted((folder / CHECKPOINTS).glob("*.pt"))
    for path in (*whole[: len(whole) - keep], *damaged_checkpoints(folder)):
        path.unlink(missing_ok=True)


def damaged_checkpoints(folder: Path) -> list[Path]:
    """The run's checkpoints that were found damaged."""
    return sorted((folder / CHECKPOINTS).glob(f"*{DAMAGED}"))


class StopFile:
    """Says whether a run is told to end; looks for the file at most twice a second."""

    def __init__(self, run_dir: Path):
        self.path = run_dir / STOP
        self._next = 0.0

    def __call__(self) -> bool:
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + STOP_SECONDS
        return self.path.exists()
