"""Paths of the results of the stages, relative to the repository's root, and atomic writing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from heartseg.errors import catch_full_disk

WEIGHTS = "weights"
"""Folder with a folder per dataset for trained weights that recipes start from."""
MODEL = "model"
"""Folder, inside a folder of results, with the weights and training.json."""


def phantom_dir(dataset: str) -> Path:
    """Return the folder of the synthetic release that the phantom stage writes."""
    return Path("data/phantoms") / dataset


def prepared_path(dataset: str) -> Path:
    """Return the Parquet file that the prepare stage writes."""
    return Path("data/prepared") / f"{dataset}.parquet"


def results_dir(dataset: str) -> Path:
    """Return the folder of the dataset's model, figures, tables and metrics."""
    return Path("results") / dataset


def model_dir(dataset: str) -> Path:
    """Return the folder in which the train stage writes the weights and training.json."""
    return results_dir(dataset) / MODEL


def sweep_results_dir(name: str) -> Path:
    """Return the folder of a sweep's plots and table, and of the best trial's results."""
    return Path("results/sweeps") / name


def crossval_results_dir(name: str) -> Path:
    """Return the folder of a recipe's cross-validation: metrics of the folds, ensemble, figures."""
    return Path("results/crossval") / name


def write_atomically(write: Callable[[Path], object], path: Path) -> None:
    """Write a file so that it appears complete or not at all. Missing folders are created.

    Args:
        write: Function that writes the file to the temporary path that it is given. That path is
            in the folder of `path` and has the same suffix.
        path: File; replaced if it exists.

    Raises:
        StorageError: If the disk is full or read-only.
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
    """Write a UTF-8 text file atomically.

    Raises:
        StorageError: If the disk is full or read-only.
    """
    write_atomically(lambda temporary: temporary.write_text(text, encoding="utf-8"), path)
