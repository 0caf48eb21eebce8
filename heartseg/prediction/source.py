"""The model that the user names: in the registry, or in a folder made by `heartseg pull`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from heartseg.config.params import PARAMS_FILE
from heartseg.errors import InputError

if TYPE_CHECKING:
    from heartseg.models.package import Package


def read_model(name: str) -> Package:
    """Read the package of a model. The network is not loaded yet.

    Args:
        name: URI of a registered model, or path of the folder of a pulled model.

    Raises:
        InputError: If the model does not exist, or if files in the folder have changed.
    """
    if Path(name).is_dir():
        from heartseg.models.package import read_package

        return read_package(Path(name))
    from heartseg.tracking.pulled import check_uri, fetch_package

    check_uri(name)
    return fetch_package(store_uri(), name)[0]


def store_uri() -> str:
    """Return the URI of the MLflow store: MLFLOW_TRACKING_URI, or that of the repository.

    Raises:
        InputError: If there is neither.
    """
    if not Path(PARAMS_FILE).exists() and "MLFLOW_TRACKING_URI" not in os.environ:
        raise InputError(
            f"there is no {PARAMS_FILE} here: run this command in the root of the repository, set "
            "MLFLOW_TRACKING_URI, or name the folder of a pulled model"
        )
    from heartseg.tracking.client import tracking_uri

    return tracking_uri(Path.cwd())
