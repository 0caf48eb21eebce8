"""The model that the user named: in the registry, or a folder made by `heartseg pull`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from heartseg.config.params import PARAMS_FILE
from heartseg.errors import InputError

if TYPE_CHECKING:
    from heartseg.models.package import Package


def read_model(name: str) -> Package:
    """The package of a model's URI or of a folder, not loaded yet.

    Raises:
        InputError: there is no such model, or its files are not those that were pulled.
    """
    if Path(name).is_dir():
        from heartseg.models.package import read_folder

        return read_folder(Path(name))
    from heartseg.tracking.pulled import check_uri, fetch_package

    check_uri(name)
    return fetch_package(store_uri(), name)[0]


def store_uri() -> str:
    """The MLflow store of the repository or of MLFLOW_TRACKING_URI.

    Raises:
        InputError: neither is there.
    """
    if not Path(PARAMS_FILE).exists() and "MLFLOW_TRACKING_URI" not in os.environ:
        raise InputError(
            f"there is no {PARAMS_FILE} here: run from the root of the repository, whose mlflow.db "
            "holds the models, set MLFLOW_TRACKING_URI, or name the folder of a pulled model"
        )
    from heartseg.tracking.client import tracking_uri

    return tracking_uri(Path.cwd())
