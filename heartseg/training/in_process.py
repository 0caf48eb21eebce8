"""Training in the current process, without Ray or as a sweep's trial with one worker."""

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
from heartseg.training.machine import record_machine
from heartseg.training.run_dir import StopFile


def train_in_process(
    recipe: Recipe,
    train_config: Train,
    data: dict[str, Resident],
    run_dir: Path,
    after_epoch: Callable[[Epoch], None] | None = None,
) -> Path:
    """Train in the current process. An interrupted run resumes from its last checkpoint.

    Args:
        recipe: Recipe of the training.
        train_config: Section `train` of params.yaml.
        data: Images of "train" and "val".
        run_dir: Folder of the run.
        after_epoch: Function that is called after an epoch has been written to the journal and to
            a checkpoint.

    Returns:
        run_dir, which contains the last checkpoint.

    Raises:
        Stopped: The run was requested to stop; see `StopFile`.
    """
    stop = StopFile(run_dir)
    journal = Journal(run_dir, data["val"], train_config.overlay_every, train_config.overlay_cases)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    record_machine(run_dir, device, "in-process", 1)

    def report(epoch: Epoch) -> None:
        assert epoch.state is not None  # this is rank 0
        # The journal comes first: after an interruption between the two, the epoch is repeated and
        # its second entry replaces the first. In the other order, its entry would be missing.
        journal.write_epoch(epoch)
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
        device_memory_fraction=train_config.device_memory_fraction,
        clinical=train_config.clinical_metrics,
        on_step=journal.write_step,
        poll_stop=lambda: StopSignal.STOP if stop() else StopSignal.CONTINUE,
        save=save,
    )
    return run_dir
