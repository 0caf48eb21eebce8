"""Lineage: which code, data and libraries made a model, as tags of its MLflow run."""

from __future__ import annotations

import getpass
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from heartseg.config import PARAMS_FILE, load_params
from heartseg.data.prepared import file_digest

NONE = "none"
LOCK = "dvc.lock"
REQUIREMENTS = "requirements.lock"
LIBRARIES = ("heartseg", "torch", "ray", "mlflow")


def lineage_tags(root: Path, dataset: str, prepared: Path) -> dict[str, str]:
    """Tags that lead from a run to the exact code and data it used.

    Works outside of git and DVC too; what is not known is then "none".

    Args:
        root: the folder of params.yaml; in a temporary experiment of DVC, that copy's.
        dataset: its name in params.yaml.
        prepared: the prepared dataset's Parquet file.

    Returns:
        git.commit, git.branch, git.dirty ("true" or "false": tracked changes other than
        dvc.lock and the outputs of stages, or untracked code), dvc.source (path),
        dvc.source_md5 (as DVC recorded it for the prepare stage or for `dvc add`),
        dvc.prepared_md5 (of the file itself),
        dvc.prepared_in_lock ("true" where dvc.lock names that very file), dvc.experiment,
        heartseg.dataset, heartseg.lock_md5 (of requirements.lock), version.python and those of
        the main libraries, and the tags by which MLflow itself shows commit and user.
    """
    stages = _locked_stages(root)
    requirements = root / REQUIREMENTS
    tags = {
        **_git_tags(root, stages),
        **_data_tags(root, stages, dataset, prepared),
        "heartseg.dataset": dataset,
        "heartseg.lock_md5": file_digest(requirements) if requirements.exists() else NONE,
        "version.python": platform.python_version(),
        **{f"version.{name}": version(name) for name in LIBRARIES},
        "mlflow.user": _user(),
    }
    if tags["git.commit"] != NONE:
        tags["mlflow.source.git.commit"] = tags["git.commit"]
    return tags


def _git_tags(root: Path, stages: dict[str, Any]) -> dict[str, str]:
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None:
        return {"git.commit": NONE, "git.branch": NONE, "git.dirty": NONE}
    commit = _git(root, "rev-parse", "--verify", "HEAD")
    if commit is None:  # no commit yet: the code stands nowhere
        dirty = True
    else:
        names = (_git(root, "diff", "--name-only", "--no-renames", "-z", "HEAD") or "").split("\0")
        changed = {(Path(top) / name).resolve() for name in names if name}
        new = _git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", "heartseg")
        changed |= {root.resolve() / name for name in (new or "").split("\0") if name}
        dirty = any(not _is_written_by_dvc(path, root.resolve(), stages) for path in changed)
    return {
        "git.commit": commit or NONE,
        "git.branch": _git(root, "symbolic-ref", "--short", "HEAD") or NONE,  # none: detached
        "git.dirty": str(dirty).lower(),
    }


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints; None where there is no git, no repository or no such thing."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip("\n") if done.returncode == 0 else None


def _is_written_by_dvc(path: Path, root: Path, stages: dict[str, Any]) -> bool:
    """Whether a tracked file is dvc.lock or lies in the output of a stage."""
    outputs = [root / out["path"] for stage in stages.values() for out in stage.get("outs", [])]
    return path == root / LOCK or any(path.is_relative_to(output) for output in outputs)


def _locked_stages(root: Path) -> dict[str, Any]:
    if not (root / LOCK).exists():
        return {}
    return yaml.safe_load((root / LOCK).read_text(encoding="utf-8"))["stages"]


def _data_tags(root: Path, stages: dict[str, Any], dataset: str, prepared: Path) -> dict[str, str]:
    source = load_params(root / PARAMS_FILE).datasets.of(dataset).source
    stage = stages.get(f"prepare@{dataset}", {})
    source_md5 = _recorded(stage.get("deps", []), root / source, root)
    added = root / f"{source}.dvc"
    if source_md5 is None and added.exists():
        outs = yaml.safe_load(added.read_text(encoding="utf-8"))["outs"]
        source_md5 = outs[0].get("md5")
    digest = file_digest(prepared)
    recorded = _recorded(stage.get("outs", []), root / prepared, root)
    return {
        "dvc.source": source.as_posix(),
        "dvc.source_md5": source_md5 or NONE,
        "dvc.prepared_md5": digest,
        "dvc.prepared_in_lock": NONE if not stages else str(recorded == digest).lower(),
        "dvc.experiment": os.environ.get("DVC_EXP_NAME", NONE),
    }


def _recorded(entries: list[dict[str, Any]], path: Path, root: Path) -> str | None:
    """The MD5 that dvc.lock holds for a dependency or output."""
    wanted = Path(os.path.abspath(path))
    for entry in entries:
        if Path(os.path.abspath(root / entry["path"])) == wanted:
            return entry.get("md5")
    return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return NONE
