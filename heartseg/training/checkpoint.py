"""Checkpoints: written whole or not at all, read without unpickling code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from heartseg.errors import InputError

FILE_NAME = "checkpoint.pt"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> Path:
    """Write `state` to folder/checkpoint.pt; a kill at any moment leaves the old file whole."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE_NAME
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """Read folder/checkpoint.pt onto the CPU.

    Raises:
        InputError: the file is missing or damaged.
    """
    path = folder / FILE_NAME
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except Exception as error:
        raise InputError(
            f"{path} is no readable checkpoint ({error}); "
            "delete it to start anew, or put back a copy"
        ) from error


def selected_weights(state: dict[str, Any]) -> tuple[int, dict[str, torch.Tensor]]:
    """Epoch and weights that become the model, from the state of the last epoch."""
    if state["recipe"]["select"] == "best":
        return state["best"]["epoch"], state["best"]["model"]
    if state["ema"] is not None:
        weights = state["ema"].items()
        own = {k.removeprefix("module."): v for k, v in weights if k.startswith("module.")}
        return state["next_epoch"] - 1, own
    return state["next_epoch"] - 1, state["model"]
