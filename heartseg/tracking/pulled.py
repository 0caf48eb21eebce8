"""Loading of models from the registry."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heartseg.errors import InputError
from heartseg.paths import CARD
from heartseg.text import printable
from heartseg.tracking.client import connect
from heartseg.tracking.descriptions import first_page
from heartseg.tracking.faults import not_found_error, store_errors
from heartseg.tracking.registry import use_store

if TYPE_CHECKING:
    from heartseg.models.package import Package


@dataclass(frozen=True)
class PulledModel:
    """A model from the registry.

    Attributes:
        predict: Function from uint8 images (N, C, H, W) to uint8 label maps (N, H, W) on the same
            grid.
        metadata: Metadata of the model, such as dataset and recipe.
    """

    predict: Callable[[np.ndarray], np.ndarray]
    metadata: dict[str, Any]


def pull(uri: str, model_uri: str) -> PulledModel:
    """Fetch and load a model, on the GPU if there is one.

    Args:
        uri: URI of the store.
        model_uri: For example "models:/heartseg-camus@champion" or "models:/heartseg-camus/3", or
            a folder that `heartseg pull` has written.

    Raises:
        InputError: If the store does not answer or has no such model.
    """
    from heartseg.models.package import read_package

    folder = Path(model_uri)
    package = read_package(folder) if folder.is_dir() else fetch_package(uri, model_uri)[0]
    return PulledModel(package.load(), package.metadata)


def check_uri(model_uri: str) -> None:
    """Check the form of a model's URI, without a connection to a store.

    Raises:
        InputError: If it is not a URI.
    """
    if ":/" not in model_uri:
        raise InputError(
            f"{model_uri}: is neither the folder of a pulled model nor the URI of a model, such as "
            "models:/heartseg-camus@champion"
        )


def fetch_package(uri: str, model_uri: str) -> tuple[Package, dict[str, Any]]:
    """Fetch a model's package without building the network.

    Only the metadata and the weights are downloaded, not the exported program beside them.

    Args:
        uri: URI of the store.
        model_uri: URI of the model, as in `pull`.

    Returns:
        The package, and its JSON-serialisable origin: model (URI), model_id, run_id and signature.

    Raises:
        InputError: If the store does not answer, has no such model, or the model was registered by
            another program or by an old version of heartseg.
    """
    check_uri(model_uri)
    client = use_store(uri)
    from mlflow.models import Model
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    from heartseg.models.package import WEIGHTS, Package

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with tempfile.TemporaryDirectory() as folder:
        try:
            store = get_artifact_repository(model_uri)
            facts = Model.load(store.download_artifacts("MLmodel", folder))
            weights = None
            if WEIGHTS in {Path(found.path).name for found in store.list_artifacts(None)}:
                weights = Path(store.download_artifacts(WEIGHTS, folder)).read_bytes()
        except store_errors() as error:
            raise not_found_error(model_uri, client, error) from None
        metadata = dict(facts.metadata or {})
        if not {"dataset", "recipe"} <= metadata.keys():
            raise InputError(
                f"{model_uri} was not registered by heartseg; choose a model in `make ui`"
            )
        if weights is None:
            raise InputError(
                f"{model_uri} has no {WEIGHTS}: an older heartseg registered it. Register it again "
                "(`heartseg register RECIPE`), or load it without heartseg by "
                "mlflow.pyfunc.load_model"
            )
    origin = {
        "model": model_uri,
        "model_id": facts.model_id,
        "run_id": facts.run_id,
        "signature": facts.signature.to_dict() if facts.signature else None,
    }
    return Package(model_uri, weights, metadata), origin


def resolve_alias(uri: str, model_uri: str) -> tuple[str, str]:
    """Resolve "models:/NAME@ALIAS" into the version that has the alias now.

    Args:
        uri: URI of the store.
        model_uri: URI of the model. A URI without an alias is returned unchanged.

    Returns:
        The URI of the version, and its number (the id for a URI without a number).

    Raises:
        InputError: If the store does not answer or the alias is not set.
    """
    name, at, alias = model_uri.removeprefix("models:/").partition("@")
    if not at:
        return model_uri, name.partition("/")[2] or name
    client = connect(uri)
    try:
        version = client.get_model_version_by_alias(name, alias).version
    except store_errors() as error:
        raise not_found_error(model_uri, client, error) from None
    return f"models:/{name}/{version}", str(version)


def read_card(uri: str, origin: dict[str, Any]) -> tuple[str, str]:
    """Read the model card of a package.

    Args:
        uri: URI of the store.
        origin: Origin of the package, from `fetch_package`.

    Returns:
        The title "NAME version N", and the card in Markdown. Both are sentences that say so if
        there is no version or no card.
    """
    client = use_store(uri)
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    found = client.search_model_versions(f"run_id = '{origin['run_id']}'")
    versions = [version for version in found if str(version.source).endswith(origin["model_id"])]
    if not versions:
        return "no registered version", f"No card: {origin['model']} is no registered version.\n"
    title = f"{printable(versions[0].name)} version {versions[0].version}"
    card = str(versions[0].description or f"{title} has no card.\n")
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(*store_errors()):
        store = get_artifact_repository(f"models:/{origin['model_id']}")
        whole = Path(store.download_artifacts(CARD, folder)).read_text(encoding="utf-8")
        if first_page(whole) == card:  # otherwise somebody has written another description
            card = whole
    return title, printable(card, lines=True)
