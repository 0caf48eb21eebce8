"""User name and password for the tracking server.

MLflow's client reads MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or the file
~/.mlflow/credentials. Only the driver connects to the server, so Ray's nodes need neither.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from urllib.parse import unquote

from heartseg.errors import InputError

VARIABLES = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


def credentials_file() -> Path:
    """Return the file in which MLflow's client looks for user name and password."""
    return Path.home() / ".mlflow" / "credentials"


def check_credentials_file() -> None:
    """Check that only the user has access to the file with the password, if it exists.

    Raises:
        InputError: If the group or others have any permission.
    """
    path = credentials_file()
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return
    if mode & 0o077:
        raise InputError(
            f"{path} contains a password, and other users may read or change it (mode "
            f"{mode:03o}); run `chmod 600 {path}`, and change the password if others use this "
            "machine"
        )


def without_credentials(uri: str) -> str:
    """Move user name and password from a server's URI into environment variables.

    If they stayed in the URI, they would appear in messages, settings and run folders.

    Args:
        uri: For example https://anna:secret@host:5000.

    Returns:
        The URI without them. URIs of databases are unchanged.
    """
    scheme, _, rest = uri.partition("://")
    # The last "@" ends the password, which may contain unquoted "/" and "@".
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
