"""The model registry: versions, and the gate in front of `champion`."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from heartseg.data.prepared import file_digest
from heartseg.data.privacy import CaseNames
from heartseg.text import printable
from heartseg.tracking.artifacts import log_lineage_files
from heartseg.tracking.client import (
    connect,
    find_training_run,
    open_run,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


Alias = Literal["champion", "challenger"]
CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"

WEIGHTS_TAG = "heartseg.weights_md5"
TRAINING_TAG = "heartseg.training_run"
POSTPROCESS_TAG = "heartseg.postprocess"
TTA_TAG = "heartseg.tta"
FORMAT_TAG = "heartseg.package"
FORMAT = "weights"
"""The package has its weights as a file of their own; those from before are registered anew."""
PACKAGE_TAGS = (WEIGHTS_TAG, TRAINING_TAG, POSTPROCESS_TAG, TTA_TAG, FORMAT_TAG)
"""What a package is made of."""
DATA_TAG = "eval.data_digest"
SPLIT_TAG = "eval.split"
METRIC_TAG = "eval.metric"
VALUE_TAG = "eval.value"
REASON_TAG = "heartseg.reason"
SWEPT_TAG = "eval.swept_on_it"
"""On a sweep's winner that is judged by the split on which the sweep has selected it."""
FLOOR_TAG = "eval.floor"
"""`MET`, or which of register.*.floor the version misses."""
MET = "met"
PROMOTING_TAG = "heartseg.promoting"
"""A mark of its own for each promotion to champion; begins with `_OPEN` until it is settled."""
_OPEN = "open:"

ELSEWHERE = " (trained elsewhere)"
DESCRIPTION_LENGTH = 5000  # of the column in MLflow's database


@dataclass(frozen=True)
class Promotion:
    """What the gate decided: the alias that the version holds now, and why."""

    alias: Alias
    reason: str


def find_or_create_run(
    client: MlflowClient, training: dict[str, Any], data_source: Path, names: CaseNames
) -> str:
    """The training's run, or one that stands for it in this store.

    DVC can bring a trained model from another machine, whose store stays there.

    Args:
        client: from `use_store`.
        training: training.json.
        data_source: the prepared dataset.
        names: how its cases may be shown.
    """
    run_id = find_training_run(client, training)
    if run_id is not None:
        info = client.get_run(run_id).info
        if info.status != "RUNNING" or not info.run_name.endswith(ELSEWHERE):
            return run_id
        client.delete_run(run_id)  # a command that was killed while it opened it
    run_id = open_run(
        client,
        experiment=training["experiment"],
        name=training["recipe_name"] + ELSEWHERE,
        params=training["recipe"],
        texts={"recipe.yaml": training["recipe"]},
        dataset=training["recipe"]["dataset"],
        data_source=data_source.as_posix(),
        data_digest=training["data_digest"],
        tags=training["tags"],
    )
    if file_digest(data_source) == training["data_digest"]:
        log_lineage_files(client, run_id, training.get("records", {}), data_source, names)
    client.set_terminated(run_id)
    return run_id


def find_version(client: MlflowClient, name: str, tags: dict[str, str]) -> ModelVersion | None:
    """The version whose package has these weights, training, post-processing and views, if any.

    Versions from before there were views look at none.
    """
    for version in client.search_model_versions(f"name = '{name}'"):
        if all(version.tags.get(tag, "none") == tags[tag] for tag in PACKAGE_TAGS):
            return version
    return None


def drop_unregistered(client: MlflowClient, name: str, run_id: str) -> None:
    """Delete packages of a run that no version holds: a killed command has left them."""
    held = {version.source for version in client.search_model_versions(f"name = '{name}'")}
    experiment = client.get_run(run_id).info.experiment_id
    for model in client.search_logged_models([experiment], f"source_run_id = '{run_id}'"):
        if f"models:/{model.model_id}" not in held:
            client.delete_logged_model(model.model_id)


def register_version(
    client: MlflowClient, name: str, run_id: str, model_uri: str, tags: dict[str, str]
) -> str:
    """Add a version to a registered model, which is created where it does not exist.

    Args:
        client: from `use_store`.
        name: the registered model.
        run_id: the run that the model was logged to.
        model_uri: the logged model, "models:/<model id>".
        tags: the version's tags; those of the evaluation decide in `promote`.

    Returns:
        The version.
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

    It becomes champion if it misses no floor, and there is no champion or it is strictly better
    than the champion on the same evaluation data by the same metric, as the tags eval.* of both
    versions say.

    MLflow has no way to set an alias only if it still is what it was. So that of two processes
    that promote at once the better version stays champion, each one announces its version by a
    tag before it sets the alias, and afterwards looks for announcements that were not settled
    when it began: if one of them is of a better version, that one gets the alias. Whichever
    process sets the alias last sees the announcements of all others.

    Args:
        client: from `heartseg.tracking.client.connect`.
        name: the registered model.
        version: the version that asks for promotion.
        mode: whether a greater or a smaller value is better.
    """
    settled = _announcements(client, name, only_settled=True)
    tags = client.get_model_version(name, version).tags
    champion = _champion(client, name)
    mark = uuid.uuid4().hex
    if champion is not None and str(champion.version) == version:
        if tags.get(PROMOTING_TAG, "").startswith(_OPEN):  # the process that did it was killed
            client.set_model_version_tag(name, version, PROMOTING_TAG, mark)
        reason = printable(tags.get(REASON_TAG, "a person made it champion"))
        if (missed := tags.get(FLOOR_TAG, MET)) != MET:
            reason = f"it is champion already, although it misses a floor now: {printable(missed)}"
        return Promotion(CHAMPION, reason)
    alias, reason = _judge(tags, champion, mode)
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
    """Leave the best of all versions that are being promoted at the same time as champion."""
    while True:
        now = _announcements(client, name)
        rivals = {one for one, mark in now.items() if settled.get(one) != mark} | {version}
        champion = _champion(client, name)
        if champion is not None and str(champion.version) not in rivals:
            break  # a person has decided otherwise meanwhile
        best = champion
        for number in sorted(rivals, key=int):
            rival = client.get_model_version(name, number)
            if _judge(rival.tags, best, mode)[0] == CHAMPION:
                best = rival
        if best is champion or best is None:
            break
        _set_alias(client, name, CHAMPION, str(best.version))
    if champion is not None and str(champion.version) == version:
        return CHAMPION, reason
    own = client.get_model_version(name, version).tags
    return CHALLENGER, f"{_judge(own, champion, mode)[1]}, which was registered at the same time"


def _announcements(
    client: MlflowClient, name: str, *, only_settled: bool = False
) -> dict[str, str]:
    """Marks of promotions to champion by version."""
    return {
        str(version.version): version.tags[PROMOTING_TAG]
        for version in client.search_model_versions(f"name = '{name}'")
        if PROMOTING_TAG in version.tags
        and not (only_settled and version.tags[PROMOTING_TAG].startswith(_OPEN))
    }


def _judge(tags: dict[str, str], champion: ModelVersion | None, mode: str) -> tuple[Alias, str]:
    tags = printable(tags)  # they go into the reasons
    value = float(tags[VALUE_TAG])
    if not math.isfinite(value):
        return CHALLENGER, f"its {tags[METRIC_TAG]} is {value}"
    if (missed := tags.get(FLOOR_TAG, MET)) != MET:
        return CHALLENGER, (
            f"it misses a floor: {missed}. A model below a floor never becomes champion by itself "
            "(register.*.floor in params.yaml)"
        )
    if champion is None:
        return CHAMPION, "there was no champion"
    other = f"the champion, version {champion.version},"
    its = printable(champion.tags)
    for tag in (METRIC_TAG, DATA_TAG, SPLIT_TAG):
        if its.get(tag) != tags[tag]:
            return CHALLENGER, (
                f"{other} was judged by another {tag} ({its.get(tag, 'none')} against "
                f"{tags[tag]}), so the two cannot be compared. Evaluate and register the "
                f"champion's recipe again on the present data, or promote by hand: "
                f"MlflowClient().set_registered_model_alias(name, '{CHAMPION}', version)"
            )
    if SWEPT_TAG in tags:
        return CHALLENGER, (
            f"the sweep has selected it on the {tags[SPLIT_TAG]} split, by which it is judged: "
            f"that is no fair comparison with {other.rstrip(',')}. Give the dataset a test split"
        )
    best = float(its[VALUE_TAG])
    better = value > best if mode == "max" else value < best
    compared = f"{tags[METRIC_TAG]} {value:.4f} against {best:.4f} of {other.rstrip(',')}"
    return (CHAMPION if better else CHALLENGER), compared


def missed_floors(numbers: Mapping[str, float | None], floor: dict[str, float]) -> str:
    """Which floors a model misses, for FLOOR_TAG; `MET` if it misses none.

    Args:
        numbers: the headline of its evaluation; an undefined value misses its floor.
        floor: the least value by name.
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

    MLflow looks whether the alias exists and inserts it if not. Of two processes that do this at
    once, the database refuses one, which MLflow reports as BAD_REQUEST; by then the alias exists.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.set_registered_model_alias(name, alias, version)
    except MlflowException as error:
        if error.error_code != "BAD_REQUEST":
            raise
        client.set_registered_model_alias(name, alias, version)


def _drop_challenger(client: MlflowClient, name: str, version: str) -> None:
    """A version that has become champion is no challenger any more."""
    if str(client.get_registered_model(name).aliases.get(CHALLENGER)) == version:
        client.delete_registered_model_alias(name, CHALLENGER)


def use_store(uri: str) -> MlflowClient:
    """Connect, and make the store the process's own one.

    MLflow logs models and resolves "models:/" through its global setting, whatever the client.

    Raises:
        InputError: the store does not answer.
    """
    client = connect(uri)
    import mlflow

    mlflow.set_tracking_uri(uri)
    return client
