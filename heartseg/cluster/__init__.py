"""All that runs on Ray: trainings, trials, predictions, and watching the cluster."""

import os
from pathlib import Path

if (
    not os.environ.get("RAY_ADDRESS")
    or (Path.home() / ".ray" / "auth_token").exists()
    or {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
):
    # Ray's own defaults for a local cluster, and for `ray start` where there is a token. Here, for
    # Ray reads it when it is imported; every module that imports Ray is in this package, or imports
    # this package first.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
