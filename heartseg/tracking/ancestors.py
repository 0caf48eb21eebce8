"""Lineage of a model: the code, data, packages and machine that its MLflow run records."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from heartseg.data.privacy import WITHHELD
from heartseg.errors import InputError
from heartseg.text import printable
from heartseg.tracking import artifacts
from heartseg.tracking.faults import not_found_error, store_errors
from heartseg.tracking.provenance import NONE, cached_file, find_data, git
from heartseg.tracking.registry import POSTPROCESS_TAG, WEIGHTS_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

STARTED_FROM_TAG = "heartseg.started_from"
Cases = dict[str, dict[str, list[str]]]
"""{split: {patient: [case]}}"""


@dataclass(frozen=True)
class TrackedModel:
    """A run in MLflow, with the model version if the user named one."""

    run: Run
    version: ModelVersion | None

    @property
    def tags(self) -> dict[str, str]:
        return self.run.data.tags

    @property
    def run_id(self) -> str:
        return self.run.info.run_id

    @property
    def weights_md5(self) -> str | None:
        """MD5 of weights.safetensors; None for a run that was not evaluated."""
        if self.version is not None:
            return self.version.tags.get(WEIGHTS_TAG)
        return self.tags.get("eval.weights_md5")


def find_model(client: MlflowClient, uri: str) -> TrackedModel:
    """Find the run, and the model version if there is one, of a URI.

    Args:
        client: Client from `connect`.
        uri: "models:/NAME@ALIAS", "models:/NAME/VERSION" or "runs:/ID".

    Raises:
        InputError: If it does not exist or was not trained by heartseg.
    """
    kind, _, rest = uri.partition(":/")
    version = None
    try:
        if kind == "models":
            name, _, alias = rest.partition("@")
            if alias:
                version = client.get_model_version_by_alias(name, alias)
            else:
                name, _, number = rest.rpartition("/")
                version = client.get_model_version(name, number)
        run_id = rest.split("/")[0] if version is None else str(version.run_id)
        tracked = TrackedModel(client.get_run(run_id), version)
    except store_errors() as error:
        raise not_found_error(uri, client, error) from None
    if "dvc.prepared_md5" not in tracked.tags:
        raise InputError(f"{uri} was not trained by heartseg: its run has no prepared dataset")
    return tracked


def read_lineage(client: MlflowClient, root: Path, tracked: TrackedModel) -> dict[str, Any]:
    """Return the lineage of a model.

    Args:
        client: Client from `connect`.
        root: Root of the repository.
        tracked: Run and version from `find_model`.

    Returns:
        Nested, JSON-serialisable and printable values; None for values that are not recorded.
    """
    tags = artifacts.read_facts(client, tracked.run)
    info = tracked.run.info
    parent = tags.get("mlflow.parentRunId")
    cases = read_cases(client, root, tracked.run)
    counts = None if cases is None else {split: len(found) for split, found in cases.items()}
    known = {key: None if value == NONE else value for key, value in tags.items()}
    found = {
        "model": None if tracked.version is None else _model(tracked.version),
        "run": describe_run(tracked.run) | {"experiment": _experiment(client, info.experiment_id)},
        "sweep": None
        if parent is None
        else {
            "run_id": parent,
            "name": known.get("heartseg.sweep"),
            "trial": known.get("heartseg.trial"),
            "values": dict(tracked.run.data.params),
        },
        "recipe": {"name": known.get("heartseg.recipe"), "values": read_recipe(client, tracked)},
        "started_from": [
            {"weights_md5": md5, "models": _names(versions_with_weights(client, md5))}
            for md5 in tags.get(STARTED_FROM_TAG, "").split()
        ],
        "code": {
            "commit": known.get("git.commit"),
            "branch": known.get("git.branch"),
            "here": git(root, "cat-file", "-e", f"{tags.get('git.commit')}^{{commit}}") is not None,
            "dirty": known.get("git.dirty"),
            "patch_md5": known.get("git.patch_md5"),
            "code_md5": known.get("heartseg.code_md5"),
            "dvc_experiment": known.get("dvc.experiment"),
        },
        "data": {
            "dataset": known.get("heartseg.dataset"),
            "source": known.get("dvc.source"),
            "source_md5": known.get("dvc.source_md5"),
            "source_in_cache": is_cached(root, known.get("dvc.source_md5")),
            "prepared_md5": known["dvc.prepared_md5"],
            "prepared_in_cache": is_cached(root, known["dvc.prepared_md5"]),
            "patients": counts,
        },
        "environment": {"lock_md5": known.get("heartseg.lock_md5")} | _below(known, "version."),
        "machine": _below(known, "machine."),
    }
    return printable(found)


def read_recipe(client: MlflowClient, tracked: TrackedModel) -> dict[str, Any] | None:
    """Read the recipe among the run's artifacts; None if it does not exist."""
    text = artifacts.read_artifact(client, tracked.run_id, "recipe.yaml")
    return None if text is None else yaml.safe_load(text)


def read_cases(client: MlflowClient, root: Path, run: Run) -> Cases | None:
    """Read the cases of each split from the run, or else from the dataset in DVC's cache."""
    cached = cached_cases(root, run.data.tags["dvc.prepared_md5"])
    return next(itertools.chain(recorded_cases(client, [run]), cached), None)


def recorded_cases(client: MlflowClient, runs: Sequence[Run]) -> Iterator[Cases]:
    """Yield the lists of cases among the artifacts of runs, except lists with withheld names.

    The names are the real ones, or hashes with the key of the person who started the run.
    """
    seen: set[str] = set()
    for run in runs:
        place = run.data.tags.get("mlflow.parentRunId", run.info.run_id)
        if place in seen:  # all trials of a sweep share one list
            continue
        seen.add(place)
        text = artifacts.read_lineage_file(client, run, artifacts.CASES)
        if text is not None and f'"{WITHHELD}"' not in text:
            yield artifacts.read_json(text)


def cached_cases(root: Path, prepared_md5: str) -> Iterator[Cases]:
    """Yield the cases of a prepared dataset, by real names, if DVC's cache has it."""
    cache = find_data(root, prepared_md5)
    if cache is not None:
        yield artifacts.split_cases(cached_file(cache, prepared_md5))


def versions_with_weights(client: MlflowClient, weights_md5: str) -> list[ModelVersion]:
    """Return the model versions with these weights."""
    return list(client.search_model_versions(f"tags.`{WEIGHTS_TAG}` = '{weights_md5}'"))


def _model(version: ModelVersion) -> dict[str, Any]:
    tags = version.tags
    return {
        "name": version.name,
        "version": str(version.version),
        "aliases": list(version.aliases),
        "weights_md5": tags.get(WEIGHTS_TAG),
        "postprocess": tags.get(POSTPROCESS_TAG),
        "evaluation": _below(tags, "eval."),
        "reason": tags.get("heartseg.reason"),
    }


def describe_run(run: Run) -> dict[str, Any]:
    """Return id, name, status, start (ms since 1970), user and deletion of a run."""
    return {
        "id": run.info.run_id,
        "name": run.info.run_name,
        "status": run.info.status,
        "started": run.info.start_time,
        "user": run.data.tags.get("mlflow.user"),
        "deleted": run.info.lifecycle_stage == "deleted",
    }


def _experiment(client: MlflowClient, experiment_id: str) -> str:
    return client.get_experiment(experiment_id).name


def _below(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}


def is_cached(root: Path, md5: str | None) -> bool | None:
    """Return whether DVC's cache has an object; None if its hash is not known."""
    return None if md5 is None else find_data(root, md5) is not None


def _names(versions: list[ModelVersion]) -> list[str]:
    return [f"{version.name}/{version.version}" for version in versions]
