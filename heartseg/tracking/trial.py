"""A trial of a sweep."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from heartseg.config.recipe import Recipe
    from heartseg.config.sweep_file import Values

State = Literal["running", "complete", "pruned", "failed", "cut off"]

SHORT = {"learning_rate": "lr", "batch_size": "bs", "input_size": "size", "weight_decay": "wd"}


@dataclass
class Trial:
    """One training of a sweep.

    Attributes:
        number: Number of the trial, from 0.
        values: Sampled values by field of the recipe.
        run_dir: Folder of the trial's checkpoints and journal. All nodes must share it.
        recipe: Recipe to train. None before the trial starts, or if the values do not fit together.
        state: "cut off" is a trial that was running when the sweep was interrupted.
        epoch: Last epoch that was reported to the study, or 0.
        value: Value of the sweep's metric after that epoch. When the trial is complete, the value
            of the epoch whose weights are kept.
        reason: Why the trial was pruned, has failed or was cut off.
    """

    number: int
    values: Values
    run_dir: Path
    recipe: Recipe | None = None
    state: State = "running"
    epoch: int = 0
    value: float | None = None
    reason: str = ""

    @property
    def name(self) -> str:
        """Name for people, for example "trial 07 lr=0.0003 bs=12 size=192"."""
        parts = [f"trial {self.number:02d}"]
        for key, value in self.values.items():
            text = f"{value:.2g}" if isinstance(value, float) else str(value)
            parts.append(f"{SHORT.get(key, key.rpartition('.')[2])}={text}")
        return " ".join(parts)

    @property
    def epochs(self) -> int:
        """Number of epochs of the recipe, or of the epochs done if the recipe is not known."""
        return self.epoch if self.recipe is None else self.recipe.epochs

    @property
    def result(self) -> float | None:
        """Value of a complete or pruned trial, and None in all other states."""
        return self.value if self.state in ("complete", "pruned") else None

    @property
    def mlflow_status(self) -> str:
        """Status of the MLflow run when the trial has ended."""
        return {"failed": "FAILED", "cut off": "KILLED"}.get(self.state, "FINISHED")
