"""The tracking server, as `heartseg doctor` sees it."""

from __future__ import annotations

import contextlib
import email.utils
import os
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from heartseg.checks.check import Check
from heartseg.checks.node import clock_check
from heartseg.errors import InputError, one_line
from heartseg.text import printable
from heartseg.tracking.client import connect, repository_root, tracking_uri
from heartseg.tracking.credentials import check_credentials_file, credentials_file
from heartseg.tracking.faults import UNKNOWN_USER, first_line, store_errors, without_password
from heartseg.tracking.moved import artifact_folder, former_folders

if TYPE_CHECKING:
    from mlflow import MlflowClient

PROBE = "heartseg-doctor"
FILE = "doctor/probe.txt"
TIMEOUT_S = 10


def check_tracking(root: Path, names: list[str]) -> list[Check]:
    """Everything that a training wants of the store; what is written for it is deleted again.

    Args:
        root: the folder of params.yaml.
        names: of the experiments, which are those of the registered models too.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    uri = tracking_uri(root)
    where = without_password(uri)
    if not uri.startswith(("http://", "https://", "sqlite:///", "postgresql", "mysql", "mssql")):
        mend = "set MLFLOW_TRACKING_URI to http://HOST:5000, or unset it"
        seen = f"{where} names neither a server nor a database"
        return [Check("tracking URI", "driver", "fail", seen, mend)]
    checks = [Check("tracking URI", "driver", "ok", where)]
    database = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
    if database is not None:
        if given and not Path(given.removeprefix("sqlite:///")).is_absolute():
            seen = (
                f"{given} is relative: it is {where} for heartseg, another one for MLflow's tools"
            )
            mend = f"set MLFLOW_TRACKING_URI to {where}"
            checks = [Check("tracking URI", "driver", "warn", seen, mend)]
        if not database.exists():
            seen = f"{database} does not exist yet; the first training makes it"
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
        seen = f"was moved or copied: it named artifacts in {', '.join(map(str, former))}"
        mend = f"nothing: it names those in {artifact_folder(database)} now"
        checks.append(Check("artifact places", where, "warn", seen, mend))
    checks.append(Check("tracking store", where, "ok", "answers, its schema is up to date"))
    for name in names:
        checks += _check_experiment(client, name, root)
        checks.append(_check_model(client, name))
    return checks


def _refused(where: str, message: str) -> Check:
    if "out-of-date database schema" in message:
        mend = "make a backup, then `mlflow db upgrade URI` once, by whoever runs the store"
        return Check("tracking schema", where, "fail", one_line(InputError(message)), mend)
    if UNKNOWN_USER in message or str(credentials_file()) in message:
        return Check("tracking user", where, "fail", message, "see the message")
    return Check("tracking store", where, "fail", one_line(InputError(message)), "see the message")


def _check_server(uri: str) -> list[Check]:
    """Its clock, whether it knows the user, and its version."""
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
        mend = "start the server, or mend MLFLOW_TRACKING_URI, a firewall, or --allowed-hosts"
        return [Check("tracking server", uri, "fail", first_line(error), mend)]
    checks = []
    if date := answer.headers.get("Date"):  # whole seconds, cut off
        moment = email.utils.parsedate_to_datetime(date).timestamp() + 0.5
        checks.append(clock_check(uri, moment - (before + after) / 2, (after - before) / 2 + 0.5))
    if answer.status_code == 401:
        return [*checks, Check("tracking user", uri, "fail", UNKNOWN_USER, "see the message")]
    version, ours = printable(answer.text.strip())[:100], mlflow.__version__
    seen = f"MLflow {version}, here {ours}"
    mend = "run the server from the same image or lock, then `mlflow db upgrade`"
    if not version[:1].isdigit() or version.split(".")[0] != ours.split(".")[0]:
        return [*checks, Check("tracking server", uri, "fail", seen, mend)]
    if version.split(".")[:2] != ours.split(".")[:2]:
        return [*checks, Check("tracking server", uri, "warn", seen, mend)]
    return [*checks, Check("tracking server", uri, "ok", seen)]


def _check_experiment(client: MlflowClient, name: str, root: Path) -> list[Check]:
    """A run in the experiment, with a point and an artifact there and back."""
    try:
        found = client.get_experiment_by_name(name)
        if found is None:
            seen = "does not exist yet, so no run and no artifact was tried in it"
            mend = "the first training makes it; `heartseg doctor` again after that"
            return [Check("experiment", name, "warn", seen, mend)]
        if found.lifecycle_stage == "deleted":
            mend = f"`mlflow experiments restore --experiment-id {found.experiment_id}`"
            return [Check("experiment", name, "fail", "was deleted", mend)]
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
            client.set_terminated(run_id, "KILLED")  # it stays, but is not taken for a running one
        seen = f"run {run_id} was written, but not deleted again: {first_line(error)}"
        checks.append(Check("deletion", name, "warn", seen, _grant("experiment", name)))
    return checks


def _grant(kind: str, name: str) -> str:
    """Not EDIT: clearing away a killed training's run and moving an alias count as deleting."""
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
        mend = (
            "the server must reach its --artifacts-destination (bucket there? keys right? disk "
            f"full?), or a local store its folder mlartifacts in {repository_root(root)}"
        )
        return Check("artifact store", name, "fail", first_line(error), mend)
    if not came_back:
        mend = "does every replica of the server have the same --artifacts-destination?"
        return Check("artifact store", name, "fail", "another text came back", mend)
    try:
        get_artifact_repository(artifact_uri, tracking_uri=uri).delete_artifacts(FILE)
    except store_errors() as error:
        seen = f"a text came back, but {FILE} of run {run_id} stays: {first_line(error)}"
        return Check("artifact store", name, "warn", seen, _grant("experiment", name))
    return Check("artifact store", name, "ok", "a text went there and came back")


def _check_model(client: MlflowClient, name: str) -> Check:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
        client.set_registered_model_tag(name, PROBE, "probe")
        client.delete_registered_model_tag(name, PROBE)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            seen = "does not exist yet, so no change of it was tried"
            mend = "the first registration makes it; `heartseg doctor` again after that"
            return Check("registered model", name, "warn", seen, mend)
        return Check("registered model", name, "fail", first_line(error), _grant("model", name))
    try:
        client.delete_registered_model_alias(name, PROBE)  # there is none: only the right is tried
    except MlflowException as error:
        seen = f"may be changed, but no alias taken away: {first_line(error)}"
        return Check("registered model", name, "warn", seen, _grant("model", name))
    return Check("registered model", name, "ok", "may be changed")
