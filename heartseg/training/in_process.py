"""`fit` in this very process: a sweep's trial of one worker, or a training without Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from heartseg.config.params import Train
from heartseg.config.recipe import Recipe
from heartseg.data.resident import Resident
from heartseg.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from heartseg.training.journal import Journal
from heartseg.training.loop import Epoch, State, StopSignal, fit
from heartseg.training.machine import note_machine
from heartseg.training.run_dir import StopFile


def train_here(
    recipe: Recipe,
    train: Train,
    data: dict[str, Resident],
    run_dir: Path,
    after_epoch: Callable[[Epoch], None] | None = None,
) -> Path:
    """Train in this process; a run that was cut off goes on from its last checkpoint.

    Args:
        recipe: what to train.
        train: how to train.
        data: "train" and "val".
        run_dir: folder of this run.
        after_epoch: called when an epoch stands in the journal and in the checkpoint.

    Returns:
        run_dir, with the last checkpoint.

    Raises:
        Stopped: the run was told to end.
    """
    stop = StopFile(run_dir)
    journal = Journal(run_dir, data["val"], train.overlay_every, train.overlay_cases)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    note_machine(run_dir, device, "in-process", 1)

    def report(epoch: Epoch) -> None:
        assert epoch.state is not None  # this is rank 0
        journal.write_epoch(epoch)  # before the checkpoint: told twice rather than never
        save_checkpoint(run_dir, epoch.state)
        if after_epoch is not None:
            after_epoch(epoch)

    def save(state: State) -> None:
        save_checkpoint(run_dir, state)

    fit(
        recipe,
        data["train"],
        data["val"],
        report=report,
        device=device,
        resume_from=load_checkpoint(run_dir) if checkpoints(run_dir) else None,
        device_memory_fraction=train.device_memory_fraction,
        clinical=train.clinical_metrics,
        on_step=journal.write_step,
        poll_stop=lambda: StopSignal.STOP if stop() else StopSignal.CONTINUE,
        save=save,
    )
    return run_dir
