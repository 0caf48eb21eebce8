"""The checks of `heartseg doctor` on the prepared data and on DVC's remote."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from heartseg.checks.check import Check
from heartseg.config.params import Params
from heartseg.paths import prepared_path

TIMEOUT_S = 120


def check_data(params: Params, root: Path) -> list[Check]:
    """Check that the pipeline's datasets exist and that DVC's remote has the same data.

    Args:
        params: Content of params.yaml.
        root: Folder of params.yaml.
    """
    checks = []
    for dataset in params.pipeline:
        source: Path = params.datasets.of(dataset).source
        prepared = prepared_path(dataset)
        if (root / prepared).exists():
            checks.append(Check("data", dataset, "ok", f"{prepared} exists"))
        elif (root / source).exists():
            fix = f"`dvc repro prepare@{dataset}`"
            checks.append(Check("data", dataset, "warn", f"{source} is not prepared yet", fix))
        else:
            fix = "`dvc pull`, or `dvc repro` for phantoms, or correct datasets.*.source"
            seen = f"neither {prepared} nor {source} exists"
            checks.append(Check("data", dataset, "fail", seen, fix))
    return [*checks, check_remote(root)]


def check_remote(root: Path) -> Check:
    """Check that DVC's remote answers and has the data.

    DVC runs in its own process, because it locks the repository until its process ends.
    """
    if not (root / ".dvc").is_dir():
        return Check("DVC remote", "driver", "warn", "no DVC repository", "`dvc init`")
    command = [sys.executable, "-m", "dvc", "status", "--cloud", "--json"]
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        fix = "check that its machine is reachable; `dvc remote list` shows its address"
        return Check("DVC remote", "driver", "fail", f"no answer in {TIMEOUT_S} s", fix)
    if "no remote specified" in done.stderr:
        fix = "`dvc remote add --default storage …`: the data are on this machine only"
        return Check("DVC remote", "driver", "warn", "none", fix)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line]
        fix = "`dvc remote list` shows its address, `dvc status --cloud -v` shows details"
        return Check("DVC remote", "driver", "fail", (lines or ["no reason given"])[-1], fix)
    return interpret_status(json.loads(done.stdout or "{}"))


def interpret_status(differences: dict[str, str]) -> Check:
    """Turn the output of `dvc status --cloud --json` into a check.

    Args:
        differences: Status by path: "new" (only in the cache), "deleted" (only in the remote) or
            "missing" (in neither).
    """
    by_state = {
        state: sorted(path for path, found in differences.items() if found == state)
        for state in ("missing", "new", "deleted")
    }
    if by_state["missing"]:
        seen = f"neither in the remote nor in the cache: {', '.join(by_state['missing'][:5])}"
        fix = "`dvc push` on the machine that has them, or `dvc repro`"
        return Check("DVC remote", "driver", "fail", seen, fix)
    if by_state["new"]:
        seen = f"lacks {len(by_state['new'])} output(s): {', '.join(by_state['new'][:5])}"
        return Check("DVC remote", "driver", "warn", seen, "`dvc push`")
    if by_state["deleted"]:
        seen = f"has {len(by_state['deleted'])} output(s) that the cache lacks"
        return Check("DVC remote", "driver", "warn", seen, "`dvc pull`")
    return Check("DVC remote", "driver", "ok", "has the same data as the cache")
