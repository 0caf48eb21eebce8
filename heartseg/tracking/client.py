"""The MLflow store: its URI, the connection to it, and the runs in it."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from heartseg.config.nested import leaves
from heartseg.errors import InputError
from heartseg.text import printable
from heartseg.tracking.credentials import check_credentials_file, without_credentials
from heartseg.tracking.descriptions import EXPERIMENT_TAGS, NOTE, RUN_TAGS
from heartseg.tracking.faults import explain, store_errors, without_password, writing_to_store
from heartseg.tracking.moved_store import artifact_folder, follow_move
from heartseg.tracking.provenance import searchable

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

    from heartseg.models.trained import TrainingRecord

_log = logging.getLogger(__name__)


# --- the store ----------------------------------------------------------------------------


def repository_root(folder: Path) -> Path:
    """Return the absolute path of the repository that `folder` belongs to.

    `dvc exp run --temp` and `--queue` work in a copy of the repository below .dvc/tmp/exps, which
    they delete afterwards. For a folder in such a copy, the original repository is returned.
    """
    folder = folder.resolve()
    for parent in folder.parents:
        if parent.parts[-3:] == (".dvc", "tmp", "exps"):
            copy = next(p for p in (folder, *folder.parents) if (p / ".dvc").is_dir())
            return parent.parents[2] / folder.relative_to(copy)
    return folder


def tracking_uri(root: Path) -> str:
    """Return MLFLOW_TRACKING_URI, by default mlflow.db at the root of the repository.

    Args:
        root: Folder that contains params.yaml.

    Returns:
        The URI. The path of a SQLite file is absolute, because workers run in other folders. User
        name and password of a server are moved from the URI into environment variables.
    """
    uri = without_credentials(os.environ.get("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db"))
    if (database := sqlite_path(uri)) is None:
        return uri
    return f"sqlite:///{repository_root(root) / database}"


def portable_uri(uri: str, root: Path) -> str:
    """Return the store's URI in the form in which run folders keep it.

    It has no password, and the path of a SQLite file inside the repository is relative to it. A
    run folder therefore still matches its store after the repository was moved.
    """
    database, root = sqlite_path(uri), repository_root(root)
    if database is not None and database.is_relative_to(root):
        return f"sqlite:///{database.relative_to(root)}"
    return without_password(uri)


def configure_mlflow() -> None:
    """Limit MLflow's log to warnings, and shorten its retries.

    Environment variables that the user has set keep their values.
    """
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # read when mlflow is imported
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # clinics allow no calls outside
    # MLflow's own 7 retries make every call to a dead server last 4 minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # a line per retry


def connect(uri: str) -> MlflowClient:
    """Connect to the store. A database that does not exist yet is created.

    The driver calls this function before any other process uses the store, because several
    processes that open a new database at the same time would all try to create its tables.

    Raises:
        InputError: If the store does not answer or cannot be used, or if other users may read the
            file with the password.
    """
    check_credentials_file()
    configure_mlflow()
    from mlflow import MlflowClient

    try:
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    except store_errors(ImportError, ValueError) as error:  # no driver, a malformed port
        raise InputError(explain(error, uri)) from None
    if (database := sqlite_path(uri)) is not None and (message := follow_move(database)):
        print(printable(message), file=sys.stderr)
    return client


def sqlite_path(uri: str) -> Path | None:
    """Return the file of a SQLite store, or None for another kind of store."""
    path = uri.removeprefix("sqlite:///")
    return None if path == uri else Path(path)


TRAINING_KEY = "heartseg.training_key"
"""Tag that identifies the run of a training that started while the store did not answer."""


# --- runs ---------------------------------------------------------------------------------


def find_experiment(client: MlflowClient, name: str) -> str:
    """Return the id of an experiment by its name, and create it if it does not exist.

    Raises:
        InputError: If the experiment was deleted on the server.
    """
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            place = _artifact_location(client.tracking_uri, name)
            return client.create_experiment(name, place, EXPERIMENT_TAGS)
        except MlflowException:
            experiment = client.get_experiment_by_name(name)
            if experiment is None:  # otherwise another process has just created it
                raise
    if experiment.lifecycle_stage == "deleted":
        raise InputError(
            f"the MLflow experiment {name} was deleted; restore it with `mlflow experiments "
            f"restore --experiment-id {experiment.experiment_id}`, or set another "
            "tracking.experiment_prefix in params.yaml"
        )
    return experiment.experiment_id


def _artifact_location(uri: str, experiment: str) -> str | None:
    """Return the folder beside a SQLite database; None leaves the choice to the server."""
    if (database := sqlite_path(uri)) is None:
        return None
    return (artifact_folder(database) / experiment).as_uri()


def open_run(
    client: MlflowClient,
    *,
    experiment: str,
    name: str,
    params: dict[str, Any],
    texts: dict[str, dict[str, Any]],
    dataset: str,
    data_source: str,
    data_digest: str,
    tags: dict[str, str],
    run_id: str | None = None,
) -> str:
    """Start a run, or continue the run with the id `run_id`.

    Args:
        client: Client from `connect`.
        experiment: Name of the experiment, which is created if it does not exist.
        name: Name of the run.
        params: Parameters. Nested keys are logged with dots between the levels.
        texts: Content of YAML artifacts by file name.
        dataset: Name of the dataset.
        data_source: Place of the training data. It is recorded, and nothing is read from it.
        data_digest: MD5 of the prepared dataset.
        tags: Facts, for example from `heartseg.tracking.provenance.lineage_tags`. Those that are
            `searchable` become tags of the run.
        run_id: Id of the run to continue. A run that was deleted on the server is replaced by a
            new one.

    Returns:
        The run's id.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param

    tags = searchable(tags)
    if run_id is not None and is_active(client, run_id):
        client.update_run(run_id, status="RUNNING")
        for key, value in tags.items():
            client.set_tag(run_id, key, value)
        return run_id
    if run_id is not None:
        _log.warning("the MLflow run %s was deleted; a new one takes its place", run_id)

    in_experiment = find_experiment(client, experiment)
    run = client.create_run(in_experiment, run_name=name, tags=RUN_TAGS | tags)
    run_id = run.info.run_id
    try:
        pairs = [Param(key, value) for key, value in flatten(params).items()]
        client.log_batch(run_id, params=pairs)
        for file_name, content in texts.items():
            client.log_text(run_id, yaml.safe_dump(content, sort_keys=False), file_name)
        source = json.dumps({"uri": data_source})
        data = Dataset(dataset, data_digest, source_type="local", source=source)
        context = InputTag("mlflow.data.context", "training")
        _log_inputs(client, run_id, [DatasetInput(data, [context])])
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    return run_id


def _log_inputs(client: MlflowClient, run_id: str, inputs: list[DatasetInput]) -> None:
    """Log the datasets of a run, and try again if another run inserts the same dataset meanwhile.

    MLflow searches for the row of a dataset and then inserts it. If two runs are the first ones
    with a dataset at the same time, one of them fails, and finds the other's row the second time.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.log_inputs(run_id, inputs)
    except MlflowException:
        client.log_inputs(run_id, inputs)


def find_training_run(client: MlflowClient, training: TrainingRecord) -> str | None:
    """Return the id of a training's run, or None if this store does not have it.

    Args:
        client: Client from `connect`.
        training: Record of the training.
    """
    run_id = training.mlflow_run_id
    if run_id is not None and is_active(client, run_id):
        return run_id
    key = training.tags.get(TRAINING_KEY)
    experiment = client.get_experiment_by_name(training.experiment)
    if key is None or experiment is None:
        return None
    runs = client.search_runs([experiment.experiment_id], _tag_filter({TRAINING_KEY: key}))
    return runs[0].info.run_id if runs else None


def delete_runs(client: MlflowClient, experiment: str, tags: dict[str, str]) -> None:
    """Delete the runs that have these tags.

    A killed driver has opened them and has not recorded their id. They are empty, because nothing
    is sent to a run before its id is recorded.
    """
    for run in client.search_runs([find_experiment(client, experiment)], _tag_filter(tags)):
        client.delete_run(run.info.run_id)


def close_runs(client: MlflowClient, experiment: str, tags: dict[str, str]) -> None:
    """End the runs that have these tags and that are RUNNING because their driver was killed."""
    running = f"{_tag_filter(tags)} and attributes.status = 'RUNNING'"
    for run in client.search_runs([find_experiment(client, experiment)], running):
        client.set_terminated(run.info.run_id, "KILLED")


def _tag_filter(tags: dict[str, str]) -> str:
    """Return MLflow's filter for runs with these tags."""
    return " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())


def log_evaluation(
    client: MlflowClient,
    run_id: str,
    numbers: Mapping[str, float | int | None],
    files: Sequence[Path],
    *,
    tags: Mapping[str, str] | None = None,
    note: str = "",
) -> None:
    """Add an evaluation to the training's run: its numbers as metrics, its files as artifacts.

    Args:
        client: Client from `connect`.
        run_id: Id of the training's run.
        numbers: Values by the metric's name. Values that are None are left out.
        files: Files and folders for the artifact folder "evaluation".
        tags: Tags to set.
        note: Description of the run in Markdown. "" keeps the present description.

    Raises:
        InputError: If the store does not answer or cannot be written.
    """
    from mlflow.entities import Metric, RunTag

    now = int(time.time() * 1000)
    found = [Metric(k, float(v), now, 0) for k, v in numbers.items() if v is not None]
    all_tags = dict(tags or {}) | ({NOTE: note} if note else {})
    with writing_to_store(client, "the evaluation"):
        client.log_batch(
            run_id, found, tags=[RunTag(key, value) for key, value in all_tags.items()]
        )
        for path in files:
            folder = "evaluation" if path.is_file() else f"evaluation/{path.name}"
            log = client.log_artifact if path.is_file() else client.log_artifacts
            log(run_id, str(path), folder)


def is_active(client: MlflowClient, run_id: str) -> bool:
    """Return whether the store has the run and the run was not deleted."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id).info.lifecycle_stage == "active"
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise


def flatten(values: dict[str, Any]) -> dict[str, str]:
    """Join nested keys by dots and convert values to text: {"a": {"b": 1}} -> {"a.b": "1"}."""
    return {".".join(key): str(value) for key, value in leaves(values)}
