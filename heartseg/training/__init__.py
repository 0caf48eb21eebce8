"""Training: the loop, its run folder and checkpoints, and the same on a Ray cluster."""

import os
from pathlib import Path

if (
    not os.environ.get("RAY_ADDRESS")
    or (Path.home() / ".ray" / "auth_token").exists()
    or {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
):
    # Ray's own defaults for a local cluster, and for `ray start` where there is a token. Here, for
    # Ray reads it when it is imported, and every module that imports Ray for us is in this package
    # or imports it first.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
