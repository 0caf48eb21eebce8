"""Users of the MLflow server and what they may do.

Run it as an administrator: MLFLOW_TRACKING_URI, and MLFLOW_TRACKING_USERNAME and
MLFLOW_TRACKING_PASSWORD or ~/.mlflow/credentials. A new user's password is asked for, or read from
standard input, so that it stands in no list of processes.
"""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Sequence

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.server import get_app_client

PERMISSIONS = ("READ", "USE", "EDIT", "MANAGE", "NO_PERMISSIONS")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="users.py", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    for action, what in (("add", "a new user"), ("password", "a new password of a user")):
        actions.add_parser(action, help=what).add_argument("user")
    actions.add_parser("remove", help="delete a user").add_argument("user")
    grant = actions.add_parser("grant", help="say what a user may do")
    revoke = actions.add_parser("revoke", help="take back what was granted")
    for action in (grant, revoke):
        action.add_argument("user")
        action.add_argument("kind", choices=("experiment", "model"))
        action.add_argument("name", help="for example heartseg-camus")
    grant.add_argument("permission", choices=PERMISSIONS)
    options = parser.parse_args(argv)
    try:
        act(options)
    except MlflowException as error:
        sys.exit(f"error: {error.message}")


def act(options: argparse.Namespace) -> None:
    client = MlflowClient()
    server = get_app_client("basic-auth", tracking_uri=client.tracking_uri)
    if options.action == "add":
        server.create_user(options.user, read_password())
    elif options.action == "password":
        server.update_user_password(options.user, read_password())
    elif options.action == "remove":
        server.delete_user(options.user)
    else:
        kind, name = options.kind, options.name
        if kind == "experiment":
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                sys.exit(f"error: there is no experiment {name}; its first training makes it")
            name = experiment.experiment_id
        else:
            kind = "registered_model"
            client.get_registered_model(name)  # a wrong name is told
        if options.action == "grant":
            server.grant_user_permission(options.user, kind, name, options.permission)
        else:
            server.revoke_user_permission(options.user, kind, name)
    print(f"{options.action} {options.user}: done")


def read_password() -> str:
    """From the terminal, unseen, or a line of standard input."""
    if sys.stdin.isatty():
        return getpass.getpass("password (at least 12 characters): ")
    return sys.stdin.readline().rstrip("\n")


if __name__ == "__main__":
    main()
