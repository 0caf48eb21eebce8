"""The record of a training that is needed to reproduce it, and the differences from now."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartseg.errors import InputError
from heartseg.text import printable
from heartseg.tracking import artifacts
from heartseg.tracking.ancestors import TrackedModel, read_recipe
from heartseg.tracking.provenance import NONE, PATCH_TAG, environment, lock_digest, patch_md5

if TYPE_CHECKING:
    from mlflow import MlflowClient

Packages = dict[str, tuple[str, str]]
"""Recorded and present version by the name of a package, or "python"."""


@dataclass(frozen=True)
class RecordedTraining:
    """The record of a training in its MLflow run.

    Attributes:
        tags: Tags of the run, and the facts of its lineage files.
        commit: Commit of the code.
        patch: Uncommitted changes of the code; "" for none.
        recipe: The complete recipe.
        started_from: MD5s of the weight files that the training started from.
        weights_md5: MD5 of weights.safetensors; None if it is not known.
        metrics: report.json of its evaluation; None if there is none.
        packages: Versions of all installed packages; None if they were not recorded.
        threads: Number of threads of the training, which affects the rounding of sums.
    """

    tags: dict[str, str]
    commit: str
    patch: str
    recipe: dict[str, Any]
    started_from: list[str]
    weights_md5: str | None
    metrics: dict[str, Any] | None
    packages: dict[str, str] | None
    threads: str


def read_recorded_training(
    client: MlflowClient, tracked: TrackedModel, uri: str
) -> RecordedTraining:
    """Read the record of a training.

    Args:
        client: Client from `connect`.
        tracked: Run and version from `find_model`.
        uri: URI of the model, for messages.

    Raises:
        InputError: If the record is not sufficient to train again or to compare, or if the patch
            was changed after the training.
    """
    tags = artifacts.read_facts(client, tracked.run)
    commit = tags.get("git.commit", NONE)
    if commit == NONE:
        raise InputError(f"{uri} was trained outside of git: its code is not recorded")
    if "heartseg.crossval" in tags:
        raise InputError(
            f"{uri} comes from a cross-validation, whose folds are not splits of the prepared "
            "data; run `heartseg crossval` at that commit"
        )
    if "machine.threads" not in tags:
        raise InputError(f"run {tracked.run_id} has no record of the machine of its training")
    recipe = read_recipe(client, tracked)
    if recipe is None:
        raise InputError(
            f"run {tracked.run_id} has no recipe.yaml among its artifacts, or they cannot be "
            "reached from here: without the recipe the model cannot be trained again"
        )
    read_artifact, read_json = artifacts.read_artifact, artifacts.read_json
    metrics = read_json(read_artifact(client, tracked.run_id, "evaluation/report.json"))
    if tracked.weights_md5 is None and metrics is None:
        raise InputError(f"{uri} was never evaluated: there is nothing to compare with")
    patch = artifacts.read_lineage_file(client, tracked.run, artifacts.PATCH) or ""
    then, stored = tags.get(PATCH_TAG, NONE), patch_md5(patch)
    if then != stored:
        raise InputError(
            f"run {tracked.run_id} was trained with uncommitted changes of MD5 {then}, but its "
            f"{artifacts.FOLDER}/{artifacts.PATCH} has MD5 {stored}: it was changed or deleted "
            "after the training, so the code is not run. Restore the artifact from a backup of "
            "the store"
        )
    return RecordedTraining(
        tags=tags,
        commit=commit,
        patch=patch,
        recipe=recipe,
        started_from=tags.get("heartseg.started_from", "").split(),
        weights_md5=tracked.weights_md5,
        metrics=metrics,
        packages=read_json(artifacts.read_lineage_file(client, tracked.run, artifacts.ENVIRONMENT)),
        threads=tags["machine.threads"].split()[0],  # "2 then 8" if it was resumed elsewhere
    )


def differing_packages(recorded: RecordedTraining) -> Packages:
    """Return the recorded and present versions that differ, Python and torch first."""
    then, now = recorded.packages, environment()
    if then is None:  # the tags have the versions of the main packages only
        kept = ("torch", "ray", "mlflow")
        then = {k: recorded.tags[f"version.{k}"] for k in kept if f"version.{k}" in recorded.tags}
        now = {name: now[name] for name in then if name in now}
    then = {"python": recorded.tags.get("version.python", "unknown"), **then}
    now = {"python": platform.python_version(), **now}
    names = dict.fromkeys(("python", "torch", *sorted({*then, *now})))
    pairs = {name: (then.get(name, "absent"), now.get(name, "absent")) for name in names}
    return printable({name: pair for name, pair in pairs.items() if pair[0] != pair[1]})


def reproduction_warnings(root: Path, recorded: RecordedTraining, packages: Packages) -> list[str]:
    """Return warnings about differences that may prevent an identical model.

    Args:
        root: Root of the repository.
        recorded: Record of the training.
        packages: Differing packages, from `differing_packages`.
    """
    found = []
    if recorded.tags.get("git.dirty") == "true" and not recorded.patch:
        found.append("the model was trained with uncommitted changes that were not recorded")
    if packages:
        then, now = recorded.tags.get("heartseg.lock_md5", NONE), lock_digest(root)
        same = "is the recorded one" if then == now else f"had the hash {then} then, {now} now"
        found.append(f"other packages are installed (requirements.lock {same}):")
        found += [f"  {name} {was} then, {is_} now" for name, (was, is_) in packages.items()]
    return found
