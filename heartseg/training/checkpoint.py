"""Checkpoints: written whole or not at all, checked on reading, read without unpickling code.

The name of a file holds how far the training was and the SHA-256 of its content:
0004-000000.1f0c….pt is to go on at the first step of epoch 4. The two newest are kept, so one
that a disk has damaged costs the work since the one before, not the training.
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

_log = logging.getLogger(__name__)


def save_checkpoint(run_dir: Path, state: dict[str, Any]) -> Path:
    """Write `state` to run_dir/checkpoints, and drop all but the newest two.

    A kill or a full disk at any moment leaves the older ones whole.

    Args:
        run_dir: of the training.
        state: of `fit`; "next_epoch" and "step" order the files.

    Raises:
        InputError: the disk is full or read-only.
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
    """The run's checkpoints, the newest last."""
    return sorted((run_dir / CHECKPOINTS).glob("*-*.*.pt"))


def load_checkpoint(run_dir: Path) -> dict[str, Any]:
    """Read the newest whole checkpoint of a run onto the CPU.

    One that is damaged gets another name and is told; the one before is taken then.

    Raises:
        InputError: there is none, or all are damaged.
    """
    damaged = []
    for path in reversed(checkpoints(run_dir)):
        try:
            return _read(path)
        except ValueError as error:
            _log.warning("%s is damaged: %s; the checkpoint before it is used", path, error)
            damaged.append(path.rename(path.with_name(path.name + DAMAGED)))
    if damaged:
        raise InputError(
            f"all checkpoints in {run_dir / CHECKPOINTS} are damaged; put back a copy, or delete "
            f"{run_dir} to start anew"
        )
    raise InputError(f"{run_dir / CHECKPOINTS} holds no checkpoint")


def _read(path: Path) -> dict[str, Any]:
    """Raises ValueError for a content that is not what was written."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != path.name.split(".")[1]:
        raise ValueError("its SHA-256 is not the one in its name")
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # nothing that was saved here: code, or another torch's format
        raise ValueError(f"it cannot be read ({error})") from error


def selected_weights(state: dict[str, Any]) -> tuple[int, dict[str, torch.Tensor]]:
    """Epoch and weights that become the model, from the state of the last epoch.

    Raises:
        InputError: it is not the last one, since that was damaged after the training had ended.
    """
    if not state["last"]:
        raise InputError(
            "the training's last checkpoint was damaged and the one before it is of epoch "
            f"{state['next_epoch'] - 1}; run `heartseg train` once more, it does the rest again"
        )
    if state["recipe"]["select"] == "best":
        return state["best"]["epoch"], state["best"]["model"]
    if state["ema"] is not None:
        weights = state["ema"].items()
        own = {k.removeprefix("module."): v for k, v in weights if k.startswith("module.")}
        return state["next_epoch"] - 1, own
    return state["next_epoch"] - 1, state["model"]
