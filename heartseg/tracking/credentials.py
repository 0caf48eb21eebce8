"""Name and password for the tracking server: where they come from, and that nobody else reads them.

MLflow's client takes MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or the file
~/.mlflow/credentials. Only the driver talks to the server: Ray's nodes need neither.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from urllib.parse import unquote

from heartseg.errors import InputError

VARIABLES = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


def credentials_file() -> Path:
    """Where MLflow's client looks."""
    return Path.home() / ".mlflow" / "credentials"


def check_credentials_file() -> None:
    """Refuse a file with a password that others may read.

    Raises:
        InputError: group or others have any right to it.
    """
    path = credentials_file()
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return
    if mode & 0o077:
        raise InputError(
            f"{path} holds a password, and others than you may read or change it (mode "
            f"{mode:03o}); `chmod 600 {path}`, and take a new password if others use this machine"
        )


def without_credentials(uri: str) -> str:
    """A server's URI without name and password, which go where MLflow's client looks for them.

    In the URI they would reach messages, files of settings and whatever keeps the URI.

    Args:
        uri: for example https://anna:secret@host:5000; URIs of databases stay as they are.
    """
    scheme, _, rest = uri.partition("://")
    # The last "@" ends the password, which may hold "/" and "@" that should have been quoted.
    user, at, place = rest.rpartition("@")
    if scheme not in ("http", "https") or not at:
        return uri
    name, _, password = user.partition(":")
    for variable, value in zip(VARIABLES, (name, password), strict=True):
        os.environ[variable] = unquote(value)
    clean = f"{scheme}://{place}"
    if os.environ.get("MLFLOW_TRACKING_URI") == uri:
        os.environ["MLFLOW_TRACKING_URI"] = clean
    return clean
