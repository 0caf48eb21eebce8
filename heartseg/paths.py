"""Where the stages leave their results, relative to the repository's root."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from heartseg.errors import catch_full_disk

WEIGHTS = "weights"
"""Holds a folder per dataset for trained weights that recipes start from."""
MODEL = "model"
"""In a folder of results: weights and training.json."""


def phantom_dir(dataset: str) -> Path:
    """The synthetic release that the phantom stage writes."""
    return Path("data/phantoms") / dataset


def prepared_path(dataset: str) -> Path:
    """The Parquet file that the prepare stage writes."""
    return Path("data/prepared") / f"{dataset}.parquet"


def results_dir(dataset: str) -> Path:
    """Folder of the dataset's model, figures, tables and metrics."""
    return Path("results") / dataset


def model_dir(dataset: str) -> Path:
    """Weights and training.json, as the train stage leaves them."""
    return results_dir(dataset) / MODEL


def sweep_results_dir(name: str) -> Path:
    """Plots, table, and the winner's model, figures and metrics of the sweep of that name."""
    return Path("results/sweeps") / name


def crossval_results_dir(name: str) -> Path:
    """The folds' metrics, and the ensemble's model, figures and metrics, of the recipe's
    cross-validation."""
    return Path("results/crossval") / name


def write_atomically(write: Callable[[Path], object], path: Path) -> None:
    """Let `write` make a file, which appears whole or not at all; folders are made.

    Args:
        write: is given a temporary path in the same folder, with the same ending.
        path: replaced if it exists.

    Raises:
        InputError: the disk is full or read-only.
    """
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        with catch_full_disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write(temporary)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises:
        InputError: the disk is full or read-only.
    """
    write_atomically(lambda temporary: temporary.write_text(text, encoding="utf-8"), path)
