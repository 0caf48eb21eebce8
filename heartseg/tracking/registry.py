"""The model registry: versions of models, and the rules for the alias `champion`."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from heartseg.data.prepared import file_digest
from heartseg.data.privacy import CaseNames
from heartseg.text import printable
from heartseg.tracking.artifacts import log_lineage_files
from heartseg.tracking.client import connect, find_training_run, open_run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from heartseg.models.trained import TrainingRecord


Alias = Literal["champion", "challenger"]
CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"

WEIGHTS_TAG = "heartseg.weights_md5"
TRAINING_TAG = "heartseg.training_run"
POSTPROCESS_TAG = "heartseg.postprocess"
TTA_TAG = "heartseg.tta"
FORMAT_TAG = "heartseg.package"
FORMAT = "weights"
"""Packages with a separate file of weights. Older packages are registered again."""
PACKAGE_TAGS = (WEIGHTS_TAG, TRAINING_TAG, POSTPROCESS_TAG, TTA_TAG, FORMAT_TAG)
"""Tags that identify the content of a package."""
DATA_TAG = "eval.data_digest"
SPLIT_TAG = "eval.split"
METRIC_TAG = "eval.metric"
VALUE_TAG = "eval.value"
REASON_TAG = "heartseg.reason"
SWEPT_TAG = "eval.swept_on_it"
"""Tag of a sweep's winner that was evaluated on the split on which the sweep has selected it."""
FLOOR_TAG = "eval.floor"
"""`MET`, or the floors of register.*.floor that the version misses."""
MET = "met"
PROMOTING_TAG = "heartseg.promoting"
"""A unique mark for each promotion to champion, which begins with `_OPEN` until it is settled."""
_OPEN = "open:"

ELSEWHERE = " (trained elsewhere)"
DESCRIPTION_LENGTH = 5000  # characters, limited by the column in MLflow's database


@dataclass(frozen=True)
class Promotion:
    """The alias that a version has after `promote`, and the reason."""

    alias: Alias
    reason: str


def find_or_create_run(
    client: MlflowClient, training: TrainingRecord, data_source: Path, names: CaseNames
) -> str:
    """Return the id of the training's run, or create a run for a training in another store.

    DVC can copy a trained model from another machine, but not the machine's store.

    Args:
        client: Client from `use_store`.
        training: Record of the training.
        data_source: Parquet file of the prepared dataset.
        names: Conversion of names of cases and patients into the names that may be shown.
    """
    run_id = find_training_run(client, training)
    if run_id is not None:
        info = client.get_run(run_id).info
        if info.status != "RUNNING" or not info.run_name.endswith(ELSEWHERE):
            return run_id
        client.delete_run(run_id)  # incomplete: the command that created it was killed
    run_id = open_run(
        client,
        experiment=training.experiment,
        name=training.recipe_name + ELSEWHERE,
        params=training.recipe,
        texts={"recipe.yaml": training.recipe},
        dataset=training.recipe["dataset"],
        data_source=data_source.as_posix(),
        data_digest=training.data_digest,
        tags=training.tags,
    )
    if file_digest(data_source) == training.data_digest:
        log_lineage_files(client, run_id, training.records, data_source, names)
    client.set_terminated(run_id)
    return run_id


def find_version(client: MlflowClient, name: str, tags: dict[str, str]) -> ModelVersion | None:
    """Return the version whose package has these `PACKAGE_TAGS`, or None.

    Old versions lack the tag of test-time augmentation, which counts as "none".
    """
    for version in client.search_model_versions(f"name = '{name}'"):
        if all(version.tags.get(tag, "none") == tags[tag] for tag in PACKAGE_TAGS):
            return version
    return None


def drop_unregistered(client: MlflowClient, name: str, run_id: str) -> None:
    """Delete the packages of a run that belong to no version because a command was killed."""
    registered = {version.source for version in client.search_model_versions(f"name = '{name}'")}
    experiment = client.get_run(run_id).info.experiment_id
    for model in client.search_logged_models([experiment], f"source_run_id = '{run_id}'"):
        if f"models:/{model.model_id}" not in registered:
            client.delete_logged_model(model.model_id)


def register_version(
    client: MlflowClient, name: str, run_id: str, model_uri: str, tags: dict[str, str]
) -> str:
    """Add a version to a registered model, which is created if it does not exist.

    Args:
        client: Client from `use_store`.
        name: Name of the registered model.
        run_id: Id of the run that the model was logged to.
        model_uri: URI of the logged model, "models:/<model id>".
        tags: Tags of the version. `promote` reads those of the evaluation.

    Returns:
        The number of the version.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    model_id = model_uri.removeprefix("models:/")
    version = client.create_model_version(name, model_uri, run_id, tags=tags, model_id=model_id)
    return str(version.version)


def promote(
    client: MlflowClient, name: str, version: str, mode: Literal["max", "min"]
) -> Promotion:
    """Make a version champion or challenger.

    It becomes champion if it misses no floor, and if there is no champion or it is strictly better
    than the champion. Both must have been evaluated on the same data by the same metric. The tags
    eval.* of the versions contain the data, the metric and its value.

    MLflow cannot set an alias on the condition that it has not changed. If two processes promote
    versions at the same time, the better one has to become champion. Each process therefore marks
    its version with a tag before it sets the alias. Afterwards it reads the marks that were not
    settled when it started, and gives the alias to the best of these versions. The process that
    sets the alias last sees the marks of all others.

    Args:
        client: Client from `heartseg.tracking.client.connect`.
        name: Name of the registered model.
        version: Number of the version to promote.
        mode: Whether a greater ("max") or a smaller ("min") value is better.
    """
    settled = _announcements(client, name, only_settled=True)
    tags = client.get_model_version(name, version).tags
    champion = _champion(client, name)
    mark = uuid.uuid4().hex
    if champion is not None and str(champion.version) == version:
        if tags.get(PROMOTING_TAG, "").startswith(_OPEN):  # the promoting process was killed
            client.set_model_version_tag(name, version, PROMOTING_TAG, mark)
        reason = printable(tags.get(REASON_TAG, "it was made champion by hand"))
        if (missed := tags.get(FLOOR_TAG, MET)) != MET:
            reason = f"it is champion already, although it misses a floor now: {printable(missed)}"
        return Promotion(CHAMPION, reason)
    alias, reason = _choose_alias(tags, champion, mode)
    client.set_model_version_tag(name, version, REASON_TAG, reason)
    if alias == CHAMPION:
        client.set_model_version_tag(name, version, PROMOTING_TAG, f"{_OPEN}{mark}")
        _set_alias(client, name, CHAMPION, version)
        alias, reason = _settle(client, name, version, mode, reason, settled)
        client.set_model_version_tag(name, version, PROMOTING_TAG, mark)
    if alias == CHAMPION:
        _drop_challenger(client, name, version)
    else:
        client.set_model_version_tag(name, version, REASON_TAG, reason)
        _set_alias(client, name, CHALLENGER, version)
    return Promotion(alias, reason)


def _settle(
    client: MlflowClient,
    name: str,
    version: str,
    mode: str,
    reason: str,
    settled: dict[str, str],
) -> tuple[Alias, str]:
    """Make the best of all versions that are promoted at the same time the champion.

    Args:
        client: Client of the store.
        name: Name of the registered model.
        version: Number of this process's version.
        mode: "max" or "min".
        reason: Reason for promoting this version.
        settled: Marks by version that were settled before this promotion started.

    Returns:
        Alias and reason for this process's version.
    """
    while True:
        now = _announcements(client, name)
        rivals = {one for one, mark in now.items() if settled.get(one) != mark} | {version}
        champion = _champion(client, name)
        if champion is not None and str(champion.version) not in rivals:
            break  # the alias was set by hand meanwhile
        best = champion
        for number in sorted(rivals, key=int):
            rival = client.get_model_version(name, number)
            if _choose_alias(rival.tags, best, mode)[0] == CHAMPION:
                best = rival
        if best is champion or best is None:
            break
        _set_alias(client, name, CHAMPION, str(best.version))
    if champion is not None and str(champion.version) == version:
        return CHAMPION, reason
    own_tags = client.get_model_version(name, version).tags
    compared = _choose_alias(own_tags, champion, mode)[1]
    return CHALLENGER, f"{compared}, which was registered at the same time"


def _announcements(
    client: MlflowClient, name: str, *, only_settled: bool = False
) -> dict[str, str]:
    """Return the marks of promotions to champion by version."""
    return {
        str(version.version): version.tags[PROMOTING_TAG]
        for version in client.search_model_versions(f"name = '{name}'")
        if PROMOTING_TAG in version.tags
        and not (only_settled and version.tags[PROMOTING_TAG].startswith(_OPEN))
    }


def _choose_alias(
    tags: dict[str, str], champion: ModelVersion | None, mode: str
) -> tuple[Alias, str]:
    """Compare a version, by its tags, with the champion; return its alias and the reason."""
    tags = printable(tags)  # the reasons contain them
    value = float(tags[VALUE_TAG])
    if not math.isfinite(value):
        return CHALLENGER, f"its {tags[METRIC_TAG]} is {value}"
    if (missed := tags.get(FLOOR_TAG, MET)) != MET:
        return CHALLENGER, (
            f"it misses a floor: {missed}. A model below a floor does not become champion "
            "automatically (register.*.floor in params.yaml)"
        )
    if champion is None:
        return CHAMPION, "there was no champion"
    other = f"the champion, version {champion.version}"
    champion_tags = printable(champion.tags)
    for tag in (METRIC_TAG, DATA_TAG, SPLIT_TAG):
        if champion_tags.get(tag) != tags[tag]:
            return CHALLENGER, (
                f"{other}, was evaluated with another {tag} ({champion_tags.get(tag, 'none')} "
                f"against {tags[tag]}), so the two cannot be compared. Evaluate and register the "
                f"champion's recipe again on the present data, or promote by hand: "
                f"MlflowClient().set_registered_model_alias(name, '{CHAMPION}', version)"
            )
    if SWEPT_TAG in tags:
        return CHALLENGER, (
            f"it was evaluated on the {tags[SPLIT_TAG]} split, on which the sweep has selected it, "
            f"so a comparison with {other}, is not fair. Give the dataset a test split"
        )
    best = float(champion_tags[VALUE_TAG])
    better = value > best if mode == "max" else value < best
    compared = f"{tags[METRIC_TAG]} {value:.4f} against {best:.4f} of {other}"
    return (CHAMPION if better else CHALLENGER), compared


def missed_floors(numbers: Mapping[str, float | None], floor: dict[str, float]) -> str:
    """Return the floors that a model misses, as a text for FLOOR_TAG; `MET` if it misses none.

    Args:
        numbers: Headline of its evaluation. An undefined value (None) misses its floor.
        floor: Smallest acceptable value by name.
    """
    missed = []
    for name, least in floor.items():
        value = numbers[name]
        if value is None or not value >= least:
            shown = "undefined" if value is None else f"{value:.4g}"
            missed.append(f"{name} is {shown}, the floor is {least:.4g}")
    return "; ".join(missed) or MET


def _champion(client: MlflowClient, name: str) -> ModelVersion | None:
    aliases = client.get_registered_model(name).aliases
    if CHAMPION not in aliases:
        return None
    return client.get_model_version(name, str(aliases[CHAMPION]))


def _set_alias(client: MlflowClient, name: str, alias: Alias, version: str) -> None:
    """Set an alias that another process may set at the same time.

    MLflow inserts an alias if it does not exist. If two processes do this at the same time, the
    database refuses one of them, and MLflow reports BAD_REQUEST. The alias then exists, so the
    second attempt succeeds.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.set_registered_model_alias(name, alias, version)
    except MlflowException as error:
        if error.error_code != "BAD_REQUEST":
            raise
        client.set_registered_model_alias(name, alias, version)


def _drop_challenger(client: MlflowClient, name: str, version: str) -> None:
    """Remove the alias challenger from a version that has become champion."""
    if str(client.get_registered_model(name).aliases.get(CHALLENGER)) == version:
        client.delete_registered_model_alias(name, CHALLENGER)


def use_store(uri: str) -> MlflowClient:
    """Connect to a store and make it MLflow's global store in this process.

    MLflow logs models and resolves "models:/" in its global store, regardless of the client.

    Raises:
        InputError: If the store does not answer.
    """
    client = connect(uri)
    import mlflow

    mlflow.set_tracking_uri(uri)
    return client
