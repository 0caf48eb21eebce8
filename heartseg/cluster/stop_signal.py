"""What the workers of a training are asked to do between two steps, and from where they go on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from ray import train as ray_train
from torch import distributed

from heartseg.errors import InputError
from heartseg.training.checkpoint import checkpoints, load_checkpoint
from heartseg.training.loop import Ask, State
from heartseg.training.run_dir import StopFile

LOOK = 9
"""Besides `Ask`: all ranks look for a notice that one of their nodes will be taken away."""
LOOK_SECONDS = 5.0
AGREE_SECONDS = 0.25
"""Steps are counted so that the workers agree about this often, not after each short step."""


class Asking:
    """The `ask` of `fit` for workers that must all do the same: rank 0 decides.

    It tells them to stop where a file in the run's folder says so or where a checkpoint could
    not be written, and to save while one of their nodes is being taken away: Ray starts them
    anew on what is left when that has happened.

    Attributes:
        fault: why a file could not be written; "" where none failed.
    """

    def __init__(self, run_dir: Path, rank: int, world_size: int):
        self.fault = ""
        self._stop = StopFile(run_dir)
        self._rank = rank
        self._group: Any = None
        if world_size > 1:  # not over the GPUs, which would wait for it
            self._group = distributed.new_group(backend="gloo")
        self._steps_left = 1
        self._last, self._next_look = time.monotonic(), time.monotonic() + LOOK_SECONDS
        self._steps = 1

    @contextmanager
    def noting_faults(self) -> Iterator[None]:
        """Keep a fault for all workers to hear of; alone, this one would leave them waiting."""
        try:
            yield
        except InputError as error:
            self.fault = str(error)

    def __call__(self) -> Ask:
        self._steps_left -= 1
        if self._steps_left:
            return Ask.GO_ON
        now = time.monotonic()
        per_step, self._last = (now - self._last) / self._steps, now
        told = torch.tensor([self._decide(), int(AGREE_SECONDS / max(per_step, 1e-6)) + 1])
        if self._group is not None:
            distributed.broadcast(told, 0, group=self._group)
        code, self._steps = told.tolist()
        self._steps_left = self._steps
        if code == LOOK:
            return Ask.SAVE if ray_train.get_preemption_info() is not None else Ask.GO_ON
        return Ask(code)

    def _decide(self) -> int:
        """Of rank 0; the others' answer is overwritten."""
        if self.fault:
            return Ask.ABORT
        if self._rank == 0 and self._stop():
            return Ask.STOP
        if time.monotonic() > self._next_look:
            self._next_look = time.monotonic() + LOOK_SECONDS
            return LOOK
        return Ask.GO_ON


def load_for_all(run_dir: Path, rank: int, world_size: int) -> State | None:
    """The newest whole checkpoint, the same on every rank; None where there is none yet.

    Raises:
        InputError: on every rank; all checkpoints are damaged.
    """
    state, fault = None, ""
    if rank == 0:
        try:
            state = load_checkpoint(run_dir) if checkpoints(run_dir) else None
        except InputError as error:
            fault = str(error)
    if world_size > 1:
        shared = [(state, fault)]
        distributed.broadcast_object_list(shared, 0)
        state, fault = shared[0]
    if fault:
        raise InputError(fault)
    return state
