"""Checkpoints: written atomically, verified by checksum, and read without unpickling code.

The file name contains the next epoch, the number of its finished steps and the SHA-256 of the
content: 0004-000000.1f0c….pt resumes at the first step of epoch 4. The two newest checkpoints are
kept, so that a training can resume from the previous one if the newest is damaged.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from pathlib import Path
from typing import Any

import torch

from heartseg.errors import InputError, catch_full_disk
from heartseg.training.run_dir import CHECKPOINTS, DAMAGED

KEPT = 2
"""Number of checkpoints that are kept."""

_log = logging.getLogger(__name__)


def save_checkpoint(run_dir: Path, state: dict[str, Any]) -> Path:
    """Write a checkpoint and delete all but the newest two.

    The older checkpoints stay intact if the process is killed or the disk is full.

    Args:
        run_dir: Folder of the run.
        state: State of `fit`. "next_epoch" and "step" determine the order of the files.

    Returns:
        Path of the checkpoint.

    Raises:
        InputError: The disk is full or read-only.
    """
    folder = run_dir / CHECKPOINTS
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    digest = hashlib.sha256(content).hexdigest()
    path = folder / f"{state['next_epoch']:04d}-{state['step']:06d}.{digest}.pt"
    with catch_full_disk(path):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{os.getpid()}.tmp"
        try:
            with open(temporary, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    for old in checkpoints(run_dir)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def checkpoints(run_dir: Path) -> list[Path]:
    """Return the paths of a run's checkpoints, the newest last."""
    return sorted((run_dir / CHECKPOINTS).glob("*-*.*.pt"))


def load_checkpoint(run_dir: Path) -> dict[str, Any]:
    """Read the newest intact checkpoint of a run onto the CPU.

    A damaged checkpoint is renamed and reported, and the previous one is read.

    Raises:
        InputError: There is no checkpoint, or all are damaged.
    """
    damaged = []
    for path in reversed(checkpoints(run_dir)):
        try:
            return _read(path)
        except ValueError as error:
            _log.warning("%s is damaged: %s; using the previous checkpoint", path, error)
            damaged.append(path.rename(path.with_name(path.name + DAMAGED)))
    if damaged:
        raise InputError(
            f"all checkpoints in {run_dir / CHECKPOINTS} are damaged; restore a backup, or delete "
            f"{run_dir} to start again"
        )
    raise InputError(f"{run_dir / CHECKPOINTS} contains no checkpoint")


def _read(path: Path) -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        ValueError: The checksum is wrong or the content cannot be read.
    """
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != path.name.split(".")[1]:
        raise ValueError("its SHA-256 differs from the one in its name")
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # code, or the format of another version of torch
        raise ValueError(f"it cannot be read ({error})") from error


def selected_weights(state: dict[str, Any]) -> tuple[int, dict[str, torch.Tensor]]:
    """Return the epoch and the weights that become the model.

    Args:
        state: State after the last epoch.

    Raises:
        InputError: It is not the state after the last epoch, because the last checkpoint was
            damaged after the end of the training.
    """
    if not state["last"]:
        raise InputError(
            "the last checkpoint of the training is damaged, and the previous one is of epoch "
            f"{state['next_epoch'] - 1}; run `heartseg train` again to repeat the rest"
        )
    if state["recipe"]["select"] == "best":
        return state["best"]["epoch"], state["best"]["model"]
    if state["ema"] is not None:
        weights = state["ema"].items()
        own = {k.removeprefix("module."): v for k, v in weights if k.startswith("module.")}
        return state["next_epoch"] - 1, own
    return state["next_epoch"] - 1, state["model"]
