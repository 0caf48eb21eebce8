"""Errors of the tracking store: their classes, their meaning, and messages with remedies."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartseg.errors import InputError
from heartseg.text import printable

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

UNKNOWN_USER = (
    "does not accept this user or password (the password may have been changed); set "
    "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or write both to "
    "~/.mlflow/credentials (chmod 600)"
)
GRANT = "ask an administrator for the permission (`python infra/users.py grant …`)"

_KINDS = {
    "mlflow.exceptions": ("MlflowException",),
    "requests.exceptions": ("RequestException",),
    "urllib3.exceptions": ("HTTPError",),
    "sqlalchemy.exc": ("SQLAlchemyError",),
    "alembic.util.exc": ("CommandError",),
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "boto3.exceptions": ("Boto3Error",),
}
_REFUSED = re.compile(r"error code (40[13])\b|\b(40[13]) Client Error")
_UNREACHABLE = re.compile(
    r"failed with exception|Max retries exceeded|too many 5\d\d error|error code (?:429|5\d\d)\b"
    r"|\b(?:429|5\d\d) (?:Client|Server) Error|\(sqlite3\.OperationalError\)"
    r"|\(psycopg2\.OperationalError\)"
)

_CAUSE = re.compile(r"\(Caused by \w+\(.*?[)>]: (.+?)['\"]?\)\)")
"""The cause in a long message of urllib3, such as "[Errno 111] Connection refused"."""


def store_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """Return the classes of errors that a store or the network can raise, and `others`.

    Use it as `except store_errors():`. No library is imported, because a library that is not
    imported cannot raise errors. Errors such as KeyError are bugs of heartseg and are not included.
    """
    found: list[type[Exception]] = [OSError, *others]
    for module, names in _KINDS.items():
        if module in sys.modules:
            found += [getattr(sys.modules[module], name) for name in names]
    return tuple(found)


def refusal_status(error: BaseException) -> int | None:
    """Return the HTTP status of a refused call.

    Returns:
        401 if the server does not accept the user or password, 403 if it does not permit the call,
        None for another error.
    """
    for status in (
        getattr(getattr(error, "response", None), "status_code", None),
        error.get_http_status_code() if hasattr(error, "get_http_status_code") else None,
    ):
        if status in (401, 403):
            return status
    found = _REFUSED.search(str(error))
    return int(found[1] or found[2]) if found else None


def explain(error: BaseException, uri: str) -> str:
    """Return a message, with the remedy, for one of the `store_errors`.

    Args:
        error: Error that a call to the store has raised.
        uri: URI of the store.
    """
    shown = without_password(uri)
    status = refusal_status(error)
    if status == 401:
        return f"the MLflow server at {shown} {UNKNOWN_USER}"
    if status == 403:
        user = os.environ.get("MLFLOW_TRACKING_USERNAME") or "this user"
        return (
            f"the MLflow server at {shown} does not permit this to {user}: {first_line(error)}; "
            f"{GRANT}"
        )
    return (
        f"the MLflow store at {shown} does not answer: {first_line(error)}. Start the server, set "
        "MLFLOW_TRACKING_URI to a running server, or unset it to use mlflow.db in the repository"
    )


def is_unreachable(error: BaseException) -> bool:
    """Return whether the store refused the user, did not answer, or had an internal error."""
    if not isinstance(error, store_errors()):
        return False
    return refusal_status(error) is not None or bool(_UNREACHABLE.search(str(error)))


def explain_store_fault(error: BaseException) -> str | None:
    """Return the message for an error that no command has caught, if the store is its cause.

    Returns:
        The message if the store refuses the user, does not answer, or has an internal error.
        Otherwise None: a call that the store rejects is a bug of heartseg, and its traceback
        matters.
    """
    if not is_unreachable(error):
        return None
    from heartseg.tracking.client import tracking_uri

    return explain(error, tracking_uri(Path.cwd()))


@contextmanager
def writing_to_store(client: MlflowClient, what: str) -> Iterator[None]:
    """Turn errors of the store inside the block into an `InputError`.

    Args:
        client: Client of the store.
        what: Name of the data that is written, for the message.

    Raises:
        InputError: If the store does not answer or cannot be written.
    """
    try:
        yield
    except InputError:
        raise
    except store_errors() as error:
        uri = client.tracking_uri
        if refusal_status(error):
            raise InputError(f"{what} could not be logged: {explain(error, uri)}") from None
        raise InputError(
            f"{what} could not be logged to {without_password(uri)}: {first_line(error)}. Run the "
            "same command again when the store can be written"
        ) from None


# --- missing models and runs --------------------------------------------------------------


def not_found_error(uri: str, client: MlflowClient, error: BaseException) -> InputError:
    """Return an error that explains why a model or a run cannot be read.

    It says which part of the URI the store does not have, and what the store has instead.

    Args:
        uri: "models:/NAME@ALIAS", "models:/NAME/VERSION", "models:/ID" or "runs:/ID".
        client: Client of the store.
        error: Error of the attempt to read it.
    """
    if refusal_status(error):
        return InputError(explain(error, client.tracking_uri))
    try:
        return InputError(printable(_missing(uri, client, error)))
    except store_errors() as other:
        return InputError(explain(other, client.tracking_uri))


def _missing(uri: str, client: MlflowClient, error: BaseException) -> str:
    store = f"the store at {without_password(client.tracking_uri)}"
    other = "set MLFLOW_TRACKING_URI to use another store"
    kind, _, rest = uri.partition(":/")
    name, at, alias = rest.partition("@")
    if not at:
        name, _, alias = rest.rpartition("/")
    if kind != "models" or not name:
        return f"nothing at {uri} in {store}: {first_line(error)}; {other}"
    model = _get(lambda: client.get_registered_model(name))
    if model is None:
        names = ", ".join(one.name for one in client.search_registered_models()) or "nothing yet"
        return f"{uri}: {store} has no model {name}. Registered there: {names}; {other}"
    numbers = sorted(int(v.version) for v in client.search_model_versions(f"name = '{name}'"))
    aliases = ", ".join(f"@{a} (version {v})" for a, v in sorted(model.aliases.items())) or "none"
    existing = f"versions {', '.join(map(str, numbers)) or 'none'}; aliases: {aliases}"
    if at and alias not in model.aliases:
        return f"{uri}: {name} in {store} has no alias {alias}. It has {existing}"
    number = str(model.aliases[alias]) if at else alias
    version = _get(lambda: client.get_model_version(name, number)) if number.isdigit() else None
    if version is None:
        return f"{uri}: {name} in {store} has no version {number}. It has {existing}"
    gone = explain_missing_run(client, str(version.run_id))
    if gone is not None:
        return f"{uri}: version {number} of {name} is registered in {store}, but {gone}"
    return (
        f"{uri}: version {number} of {name} is registered in {store}, but its files cannot be "
        f"read: {first_line(error)}. Restore the artifact store (for mlflow.db the folder "
        "mlartifacts beside it), or register the model again"
    )


def explain_missing_run(client: MlflowClient, run_id: str) -> str | None:
    """Return a message, with the remedy, if a run is missing or deleted; None if it exists."""
    run = find_run(client, run_id)
    if run is None:
        return (
            f"its run {run_id} is gone, together with its artifacts. Delete the version in "
            "MLflow, then train and register the model again"
        )
    if run.info.lifecycle_stage == "deleted":
        return (
            f"its run {run_id} was deleted; restore it with `mlflow runs restore --run-id {run_id}`"
        )
    return None


def find_run(client: MlflowClient, run_id: str) -> Run | None:
    """Return a run, even if it was deleted; None if the store does not have it."""
    return _get(lambda: client.get_run(run_id))


def _get(query: Any) -> Any:
    """Return the result of a query, or None if the store has no such object."""
    from mlflow.exceptions import MlflowException

    try:
        return query()
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


# --- messages -----------------------------------------------------------------------------


def without_password(text: str) -> str:
    """Hide the passwords of URIs in a text.

    A password may contain any character other than white space, even an unescaped "/", "@" or ":".
    Everything between "://" and the last "@" of a word is therefore hidden. Files have no password.
    """
    return re.sub(r"(?<!\bsqlite)(?<!\bfile)://\S*@", "://***@", text)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 200 characters, without passwords."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if found := _CAUSE.search(line):
        line = found[1]
    return printable(without_password(line))[:200]
