"""`fit` in this very process, without Ray: for a debugger, and to measure against."""

from __future__ import annotations

from pathlib import Path

import torch

from heartseg.config import Recipe, Train
from heartseg.data.resident import Resident
from heartseg.training.checkpoint import FILE_NAME, load_checkpoint, save_checkpoint
from heartseg.training.journal import Journal
from heartseg.training.loop import Epoch, fit


def train_here(recipe: Recipe, train: Train, data: dict[str, Resident], run_dir: Path) -> Path:
    """Train in this process; a run that was cut off goes on from its last checkpoint.

    Args:
        recipe: what to train.
        train: how to train.
        data: "train" and "val".
        run_dir: folder of this run.

    Returns:
        The folder of the last checkpoint.
    """
    journal = Journal(run_dir, data["val"], train.overlay_every, train.overlay_cases)

    def report(epoch: Epoch) -> None:
        assert epoch.state is not None  # this is rank 0
        journal.write_epoch(epoch)  # before the checkpoint: told twice rather than never
        save_checkpoint(run_dir, epoch.state)

    fit(
        recipe,
        data["train"],
        data["val"],
        report=report,
        device="cuda" if torch.cuda.is_available() else "cpu",
        resume_from=load_checkpoint(run_dir) if (run_dir / FILE_NAME).exists() else None,
        device_memory_fraction=train.device_memory_fraction,
        on_step=journal.write_step,
    )
    return run_dir
