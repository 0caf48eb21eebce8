"""The signal by which all workers of a training stop together, and the state they resume from."""

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
from heartseg.training.loop import State, StopSignal
from heartseg.training.run_dir import StopFile

CHECK_PREEMPTION = 9
"""Sent besides the values of `StopSignal`: all ranks check if one of their nodes is preempted."""
CHECK_PREEMPTION_SECONDS = 5.0
SYNC_SECONDS = 0.25
"""Time between two broadcasts. A broadcast after each step would slow short steps down."""


class StopPoller:
    """The `poll_stop` of `fit` for several workers: rank 0 decides and broadcasts its decision.

    The workers stop if the run folder contains a stop file or if a file could not be written.
    They save a checkpoint if Ray announces the preemption of one of their nodes; Ray then
    restarts them on the remaining nodes.

    Args:
        run_dir: Folder of the run.
        rank: Rank of this worker.
        world_size: Number of workers.

    Attributes:
        fault: Reason why a file could not be written, or "".
    """

    def __init__(self, run_dir: Path, rank: int, world_size: int):
        self.fault = ""
        self._stop_file = StopFile(run_dir)
        self._rank = rank
        self._group: Any = None
        if world_size > 1:  # NCCL would wait for the GPU
            self._group = distributed.new_group(backend="gloo")
        self._interval = 1  # steps from one broadcast to the next
        self._steps_left = 1
        self._last_sync = time.monotonic()
        self._next_check = self._last_sync + CHECK_PREEMPTION_SECONDS

    @contextmanager
    def recording_faults(self) -> Iterator[None]:
        """Keep an InputError in `fault`, so that all workers stop instead of waiting for one."""
        try:
            yield
        except InputError as error:
            self.fault = str(error)

    def __call__(self) -> StopSignal:
        self._steps_left -= 1
        if self._steps_left:
            return StopSignal.CONTINUE
        now = time.monotonic()
        step_seconds = (now - self._last_sync) / self._interval
        self._last_sync = now
        interval = int(SYNC_SECONDS / max(step_seconds, 1e-6)) + 1
        message = torch.tensor([self._decide(), interval])
        if self._group is not None:
            distributed.broadcast(message, 0, group=self._group)
        code, self._interval = message.tolist()
        self._steps_left = self._interval
        if code == CHECK_PREEMPTION:
            preempted = ray_train.get_preemption_info() is not None
            return StopSignal.SAVE if preempted else StopSignal.CONTINUE
        return StopSignal(code)

    def _decide(self) -> int:
        """Return the code to broadcast. The codes of ranks other than 0 are overwritten."""
        if self.fault:
            return StopSignal.ABORT
        if self._rank == 0 and self._stop_file():
            return StopSignal.STOP
        if time.monotonic() > self._next_check:
            self._next_check = time.monotonic() + CHECK_PREEMPTION_SECONDS
            return CHECK_PREEMPTION
        return StopSignal.CONTINUE


def load_for_all(run_dir: Path, rank: int, world_size: int) -> State | None:
    """Load the newest valid checkpoint on rank 0 and broadcast it to all ranks.

    Returns:
        The state, or None if there is no checkpoint yet.

    Raises:
        InputError: On every rank, if all checkpoints are damaged.
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
