"""Checks of the tracking store for `heartseg doctor`."""

from __future__ import annotations

import contextlib
import email.utils
import os
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from heartseg.checks.check import Check
from heartseg.checks.node import check_clock
from heartseg.errors import InputError, one_line
from heartseg.text import printable
from heartseg.tracking.client import connect, repository_root, tracking_uri
from heartseg.tracking.credentials import check_credentials_file, credentials_file
from heartseg.tracking.faults import UNKNOWN_USER, first_line, store_errors, without_password
from heartseg.tracking.moved_store import artifact_folder, former_folders

if TYPE_CHECKING:
    from mlflow import MlflowClient

PROBE = "heartseg-doctor"
FILE = "doctor/probe.txt"
TIMEOUT_S = 10


def check_tracking(root: Path, names: list[str]) -> list[Check]:
    """Check everything that a training needs from the store.

    The checks write a run, an artifact and tags, and delete them again.

    Args:
        root: Folder that contains params.yaml.
        names: Names of the experiments, which are also the names of the registered models.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    uri = tracking_uri(root)
    where = without_password(uri)
    if not uri.startswith(("http://", "https://", "sqlite:///", "postgresql", "mysql", "mssql")):
        remedy = "set MLFLOW_TRACKING_URI to http://HOST:5000, or unset it"
        seen = f"{where} names neither a server nor a database"
        return [Check("tracking URI", "driver", "fail", seen, remedy)]
    checks = [Check("tracking URI", "driver", "ok", where)]
    database = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
    if database is not None:
        if given and not Path(given.removeprefix("sqlite:///")).is_absolute():
            seen = (
                f"{given} is a relative path: heartseg uses {where}, MLflow's tools may use another"
            )
            remedy = f"set MLFLOW_TRACKING_URI to {where}"
            checks = [Check("tracking URI", "driver", "warn", seen, remedy)]
        if not database.exists():
            seen = f"{database} does not exist yet; the first training creates it"
            return [*checks, Check("tracking store", where, "ok", seen)]
    try:
        check_credentials_file()
    except InputError as error:
        return [*checks, _refused(where, str(error))]
    if uri.startswith("http"):
        checks += _check_server(uri)
        if checks[-1].status == "fail":
            return checks
    former = former_folders(database) if database is not None else []
    try:
        client = connect(uri)
    except InputError as error:
        return [*checks, _refused(where, str(error))]
    if database is not None and former:
        seen = f"was moved or copied: it referred to artifacts in {', '.join(map(str, former))}"
        remedy = f"nothing to do: it now refers to artifacts in {artifact_folder(database)}"
        checks.append(Check("artifact places", where, "warn", seen, remedy))
    checks.append(Check("tracking store", where, "ok", "answers, its schema is up to date"))
    for name in names:
        checks += _check_experiment(client, name, root)
        checks.append(_check_model(client, name))
    return checks


def _refused(where: str, message: str) -> Check:
    if "out-of-date database schema" in message:
        remedy = "let the store's administrator make a backup and run `mlflow db upgrade URI` once"
        return Check("tracking schema", where, "fail", one_line(InputError(message)), remedy)
    if UNKNOWN_USER in message or str(credentials_file()) in message:
        return Check("tracking user", where, "fail", message, "see the message")
    return Check("tracking store", where, "fail", one_line(InputError(message)), "see the message")


def _check_server(uri: str) -> list[Check]:
    """Check the server's clock, its version, and whether it knows the user."""
    import mlflow
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    before = time.time()
    try:
        creds = get_default_host_creds(uri)
        options = {"timeout": TIMEOUT_S, "max_retries": 0, "raise_on_status": False}
        answer = http_request(creds, "/version", "GET", **options)
        after = time.time()
    except store_errors() as error:
        remedy = "start the server, or fix MLFLOW_TRACKING_URI, the firewall, or --allowed-hosts"
        return [Check("tracking server", uri, "fail", first_line(error), remedy)]
    checks = []
    if date := answer.headers.get("Date"):
        # The header is truncated to whole seconds, so its error is ± 0.5 s around the middle.
        moment = email.utils.parsedate_to_datetime(date).timestamp() + 0.5
        checks.append(check_clock(uri, moment - (before + after) / 2, (after - before) / 2 + 0.5))
    if answer.status_code == 401:
        return [*checks, Check("tracking user", uri, "fail", UNKNOWN_USER, "see the message")]
    version, ours = printable(answer.text.strip())[:100], mlflow.__version__
    seen = f"MLflow {version}, here {ours}"
    remedy = "run the server from the same image or lock, then `mlflow db upgrade`"
    if not version[:1].isdigit() or version.split(".")[0] != ours.split(".")[0]:
        return [*checks, Check("tracking server", uri, "fail", seen, remedy)]
    if version.split(".")[:2] != ours.split(".")[:2]:
        return [*checks, Check("tracking server", uri, "warn", seen, remedy)]
    return [*checks, Check("tracking server", uri, "ok", seen)]


def _check_experiment(client: MlflowClient, name: str, root: Path) -> list[Check]:
    """Write a run with a metric and an artifact, read the artifact, and delete the run."""
    try:
        found = client.get_experiment_by_name(name)
        if found is None:
            seen = "does not exist yet, so writing a run and an artifact was not tried"
            remedy = "run `heartseg doctor` again after the first training, which creates it"
            return [Check("experiment", name, "warn", seen, remedy)]
        if found.lifecycle_stage == "deleted":
            remedy = f"`mlflow experiments restore --experiment-id {found.experiment_id}`"
            return [Check("experiment", name, "fail", "was deleted", remedy)]
        run = client.create_run(found.experiment_id, run_name=PROBE)
    except store_errors() as error:
        seen = f"no run: {first_line(error)}"
        return [Check("experiment", name, "fail", seen, _grant("experiment", name))]
    run_id = run.info.run_id
    try:
        client.log_metric(run_id, "probe", 1.0)
        checks = [Check("experiment", name, "ok", "a run was written")]
        checks.append(_check_artifacts(client, run_id, name, run.info.artifact_uri, root))
    except store_errors() as error:
        seen = f"no metric: {first_line(error)}"
        checks = [Check("experiment", name, "fail", seen, _grant("experiment", name))]
    try:
        client.delete_run(run_id)
    except store_errors() as error:
        with contextlib.suppress(*store_errors()):
            client.set_terminated(run_id, "KILLED")  # so that it is not shown as running
        seen = f"run {run_id} was written, but could not be deleted: {first_line(error)}"
        checks.append(Check("deletion", name, "warn", seen, _grant("experiment", name)))
    return checks


def _grant(kind: str, name: str) -> str:
    """Return the remedy for a missing permission.

    EDIT is not enough: MLflow counts removing a killed training's run and moving an alias as
    deletions.
    """
    return f"ask an administrator: `python infra/users.py grant YOU {kind} {name} MANAGE`"


def _check_artifacts(
    client: MlflowClient, run_id: str, name: str, artifact_uri: str, root: Path
) -> Check:
    from mlflow.artifacts import download_artifacts
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    text = uuid.uuid4().hex
    try:
        client.log_text(run_id, text, FILE)
        uri = client.tracking_uri
        path = Path(download_artifacts(run_id=run_id, artifact_path=FILE, tracking_uri=uri))
        came_back = path.read_text(encoding="utf-8") == text
    except store_errors() as error:
        remedy = (
            "check the server's --artifacts-destination (bucket, keys, disk space), or for a local "
            f"store the folder mlartifacts in {repository_root(root)}"
        )
        return Check("artifact store", name, "fail", first_line(error), remedy)
    if not came_back:
        remedy = "give every replica of the server the same --artifacts-destination"
        return Check("artifact store", name, "fail", "another text was read than written", remedy)
    try:
        get_artifact_repository(artifact_uri, tracking_uri=uri).delete_artifacts(FILE)
    except store_errors() as error:
        seen = f"{FILE} of run {run_id} was written, but could not be deleted: {first_line(error)}"
        return Check("artifact store", name, "warn", seen, _grant("experiment", name))
    return Check("artifact store", name, "ok", "a text was written and read")


def _check_model(client: MlflowClient, name: str) -> Check:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
        client.set_registered_model_tag(name, PROBE, "probe")
        client.delete_registered_model_tag(name, PROBE)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            seen = "does not exist yet, so changing it was not tried"
            remedy = "run `heartseg doctor` again after the first registration, which creates it"
            return Check("registered model", name, "warn", seen, remedy)
        return Check("registered model", name, "fail", first_line(error), _grant("model", name))
    try:
        # The alias does not exist; the call only tests the permission.
        client.delete_registered_model_alias(name, PROBE)
    except MlflowException as error:
        seen = f"may be changed, but its aliases may not be deleted: {first_line(error)}"
        return Check("registered model", name, "warn", seen, _grant("model", name))
    return Check("registered model", name, "ok", "may be changed")
