"""The folder of a training run, from which an interrupted run resumes."""

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
"""Name of a file in the run's folder that stops the training after writing a checkpoint."""
STOP_SECONDS = 0.5
"""Seconds between two checks for the file."""
CHECKPOINTS = "checkpoints"
DAMAGED = ".damaged"
"""Suffix of a checkpoint with a wrong checksum."""
PACKAGE = Path(__file__).parents[1]
CODE = ("data", "datasets", "metrics", "models", "training", "cluster")
"""Folders of heartseg with code that affects the result of a training."""


class FolderInUse(InputError):
    """Another process uses the folder."""


@contextmanager
def open_run_dir(
    runs: Path, name: str, recipe: Recipe, data_digest: str, engine: str
) -> Iterator[Path]:
    """Open and lock the folder of a training.

    The name of the folder depends on recipe, data, initial weights, code and engine. An interrupted
    run with the same inputs therefore has the same folder. The folder of a finished run is emptied,
    so that the training starts again.

    Args:
        runs: Absolute path of the folder of all runs.
        name: Name of the recipe.
        recipe: Recipe of the training.
        data_digest: Digest of the prepared dataset.
        engine: "ray" or "in-process". Each stores its checkpoints differently.

    Yields:
        The folder.

    Raises:
        FolderInUse: Another process uses the folder.
    """
    inputs = training_inputs(recipe, data_digest) | {"engine": engine}
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    folder = runs / f"{name}-{key[:10]}"
    runs.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder):
        if read_state(folder).get("finished"):
            shutil.rmtree(folder)
        folder.mkdir(exist_ok=True)
        update_state(folder, recipe_name=name, made_of=inputs)
        yield folder


def training_inputs(recipe: Recipe, data_digest: str) -> dict[str, Any]:
    """Return everything that determines the result of a training.

    This is the recipe, the digest of the data, the digests of the weight files from which the
    recipe starts, and the digest of the code.
    """
    from heartseg.data.prepared import file_digest  # imported here because it imports pandas

    return {
        "recipe": recipe.model_dump(mode="json"),
        "data": data_digest,
        "weights": {str(path): file_digest(path) for path in recipe.weight_files()},
        "code": code_digest(),
    }


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes. The folder need not exist.

    Raises:
        FolderInUse: Another process has locked it.
    """
    with open(folder.parent / f"{folder.name}.lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUse(
                f"another process uses {folder}; wait until it ends, or stop it"
            ) from None
        yield


@contextmanager
def stop_on_signals(folder: Path) -> Iterator[None]:
    """On SIGTERM or SIGHUP, stop the training in `folder` after its next step with a checkpoint.

    Schedulers send SIGTERM before the end of a job. SIGHUP is sent when a terminal is closed; under
    nohup it stays ignored.
    """
    (folder / STOP).unlink(missing_ok=True)
    with handle_termination(lambda number, frame: (folder / STOP).touch()):
        yield


@contextmanager
def handle_termination(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Handle SIGTERM and SIGHUP by `handler`. SIGHUP stays ignored if it was ignored before."""
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def raise_stopped(number: int, frame: FrameType | None) -> None:
    """Raise `Stopped`: a handler for `handle_termination`."""
    raise Stopped


def code_files() -> dict[str, str]:
    """Return the MD5 of each file of code that affects the result of a training, by path."""
    paths = sorted(path for room in CODE for path in (PACKAGE / room).rglob("*.py"))
    return {
        path.relative_to(PACKAGE).as_posix(): hashlib.md5(
            path.read_bytes(), usedforsecurity=False
        ).hexdigest()
        for path in paths
    }


def code_digest() -> str:
    """Return a single MD5 of `code_files`."""
    return hashlib.md5(json.dumps(code_files()).encode(), usedforsecurity=False).hexdigest()


def read_state(folder: Path) -> dict[str, Any]:
    """Read run.json: the MLflow run id, whether the run is finished, and its inputs."""
    path = folder / STATE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def update_state(folder: Path, **values: Any) -> None:
    """Change values in run.json. The file is replaced atomically."""
    write_text(folder / STATE, json.dumps(read_state(folder) | values, indent=1))


def clear_checkpoints(folder: Path, *, keep: int) -> None:
    """Delete all checkpoints of a training except for the newest `keep`."""
    intact = sorted((folder / CHECKPOINTS).glob("*.pt"))
    for path in (*intact[: len(intact) - keep], *damaged_checkpoints(folder)):
        path.unlink(missing_ok=True)


def damaged_checkpoints(folder: Path) -> list[Path]:
    """Return the paths of damaged checkpoints of a run."""
    return sorted((folder / CHECKPOINTS).glob(f"*{DAMAGED}"))


class StopFile:
    """Check whether a run is requested to stop, by the file `STOP` in its folder.

    The file system is accessed at most twice a second. In between, the answer is False.
    """

    def __init__(self, run_dir: Path):
        self.path = run_dir / STOP
        self._next = 0.0

    def __call__(self) -> bool:
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + STOP_SECONDS
        return self.path.exists()
