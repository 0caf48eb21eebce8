"""The data and DVC's remote, as `heartseg doctor` sees them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from heartseg.checks.check import Check
from heartseg.config.params import Params
from heartseg.paths import prepared_path

PATIENCE_S = 120


def check_data(params: Params, root: Path) -> list[Check]:
    """Whether the datasets of the pipeline are there, and DVC's remote has what the cache has.

    Args:
        params: params.yaml.
        root: its folder.
    """
    checks = []
    for dataset in params.pipeline:
        source: Path = params.datasets.of(dataset).source
        prepared = prepared_path(dataset)
        if (root / prepared).exists():
            checks.append(Check("data", dataset, "ok", f"{prepared} is there"))
        elif (root / source).exists():
            mend = f"`dvc repro prepare@{dataset}`"
            checks.append(Check("data", dataset, "warn", f"{source} is not prepared yet", mend))
        else:
            mend = "`dvc pull`, or `dvc repro` for phantoms, or mend datasets.*.source"
            checks.append(Check("data", dataset, "fail", f"neither {prepared} nor {source}", mend))
    return [*checks, check_remote(root)]


def check_remote(root: Path) -> Check:
    """Whether DVC's remote answers and has the data.

    DVC runs as a process of its own: it holds a lock on the repository, which ends with it.
    """
    if not (root / ".dvc").is_dir():
        return Check("DVC remote", "driver", "warn", "no DVC repository", "`dvc init`")
    command = [sys.executable, "-m", "dvc", "status", "--cloud", "--json"]
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )
    except subprocess.TimeoutExpired:
        mend = "is the machine reachable from here? `dvc remote list` shows where it should be"
        return Check("DVC remote", "driver", "fail", f"no answer in {PATIENCE_S} s", mend)
    if "no remote specified" in done.stderr:
        mend = "`dvc remote add --default storage …`: the data are on this machine only"
        return Check("DVC remote", "driver", "warn", "none", mend)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line]
        mend = "`dvc remote list` shows where it should be; `dvc status --cloud -v` says more"
        return Check("DVC remote", "driver", "fail", (lines or ["no reason given"])[-1], mend)
    return judge_remote(json.loads(done.stdout or "{}"))


def judge_remote(differences: dict[str, str]) -> Check:
    """What `dvc status --cloud --json` means.

    Args:
        differences: "new" (only here), "deleted" (only there) or "missing" (nowhere), by path.
    """
    by_state = {
        state: sorted(path for path, found in differences.items() if found == state)
        for state in ("missing", "new", "deleted")
    }
    if by_state["missing"]:
        seen = f"neither there nor in the cache: {', '.join(by_state['missing'][:5])}"
        return Check(
            "DVC remote", "driver", "fail", seen, "`dvc push` where they are, or `dvc repro`"
        )
    if by_state["new"]:
        seen = f"lacks {len(by_state['new'])} output(s): {', '.join(by_state['new'][:5])}"
        return Check("DVC remote", "driver", "warn", seen, "`dvc push`")
    if by_state["deleted"]:
        seen = f"has {len(by_state['deleted'])} output(s) that are not here"
        return Check("DVC remote", "driver", "warn", seen, "`dvc pull`")
    return Check("DVC remote", "driver", "ok", "answers, and has what is here")
