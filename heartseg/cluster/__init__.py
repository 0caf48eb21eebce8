"""Everything that runs on Ray: training, sweep trials, prediction, and checks of the cluster."""

import os
from pathlib import Path

if (
    not os.environ.get("RAY_ADDRESS")
    or (Path.home() / ".ray" / "auth_token").exists()
    or {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
):
    # Use token authentication on local clusters, and on other clusters if there is a token. Ray
    # reads this variable when it is imported, so it is set here: every module that imports Ray is
    # in this package or imports this package first.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
