"""A small sweep of the CAMUS recipe, and journals as a training writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from heartseg.config.params import Params
from heartseg.config.sweep_file import SweepFile, read_sweep

TPE: dict[str, Any] = {
    "name": "tpe",
    "multivariate": True,
    "constant_liar": True,
    "startup_trials": 2,
}
ASHA: dict[str, Any] = {"name": "asha", "min_epochs": 2, "reduction_factor": 2}


def content(**changes: Any) -> dict[str, Any]:
    """The content of a sweep file with some keys changed."""
    return {
        "recipe": "camus",
        "metric": "dice_mean",
        "mode": "max",
        "space": {
            "learning_rate": {"loguniform": [0.001, 0.01]},
            "batch_size": {"choice": [8, 12, 16]},
        },
        "sampler": TPE,
        "pruner": {"name": "none"},
        "trials": 6,
        "hours": None,
        "resources": {"workers": 1, "cpus": 1, "gpus": 0},
        "initial_points": [],
        "seed": 0,
        "register": False,
    } | changes


def small_sweep(params: Params, folder: Path, **changes: Any) -> SweepFile:
    """The same, read from a file."""
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(content(**changes), sort_keys=False), encoding="utf-8")
    return read_sweep(path, params)


def write_epochs(run_dir: Path, *values: float, first: int = 1, **metrics: float) -> None:
    """Append complete epochs to a trial's journal, each with its dice_mean."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with open(run_dir / "journal.jsonl", "a", encoding="utf-8") as stream:
        for epoch, value in enumerate(values, start=first):
            entry = {
                "epoch": epoch,
                "time": 1_700_000_000.5 + epoch,
                "metrics": {"dice_mean": value, **metrics},
                "samples": None,
            }
            stream.write(json.dumps(entry) + "\n")
