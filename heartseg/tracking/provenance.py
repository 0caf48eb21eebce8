"""Lineage: which code, data and libraries made a model, as far as git and DVC know it."""

from __future__ import annotations

import getpass
import hashlib
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import yaml

from heartseg.config.params import PARAMS_FILE, load_params
from heartseg.data.prepared import file_digest

NONE = "none"
LOCK = "dvc.lock"
PATCH_TAG = "git.patch_md5"
REQUIREMENTS = "requirements.lock"
LIBRARIES = ("heartseg", "torch", "ray", "mlflow")
FILED = (
    "git.branch",
    "dvc.prepared_in_lock",
    "dvc.experiment",
    "heartseg.code_md5",
    "heartseg.lock_md5",
    "version.",
    "machine.",
)
"""Beginnings of the facts that are kept in lineage/*.json only: no run is searched by them."""


def lineage_tags(root: Path, dataset: str, prepared: Path) -> dict[str, str]:
    """Facts that lead from a run to the exact code and data it used.

    `searchable` says which of them become tags of the run in MLflow.

    Works outside of git and DVC too; what is not known is then "none".

    Args:
        root: the folder of params.yaml; in a temporary experiment of DVC, that copy's.
        dataset: its name in params.yaml.
        prepared: the prepared dataset's Parquet file.

    Returns:
        git.commit, git.branch, git.dirty ("true" or "false": tracked changes other than
        dvc.lock and the outputs of stages, or untracked code), git.patch_md5 (of
        `working_patch`), dvc.source (path),
        dvc.source_md5 (as DVC recorded it for the prepare stage or for `dvc add`),
        dvc.prepared_md5 (of the file itself),
        dvc.prepared_in_lock ("true" where dvc.lock names that very file), dvc.experiment,
        heartseg.dataset, heartseg.lock_md5 (of requirements.lock), version.python and those of
        the main libraries, and the tags by which MLflow itself shows commit and user.
    """
    stages = _locked_stages(root)
    patch = working_patch(root)
    tags = {
        **git_tags(root),
        PATCH_TAG: patch_md5(patch),
        **_data_tags(root, stages, dataset, prepared),
        "heartseg.dataset": dataset,
        "heartseg.lock_md5": lock_digest(root),
        "version.python": platform.python_version(),
        **{f"version.{name}": version(name) for name in LIBRARIES},
        "mlflow.user": _user(),
    }
    if tags["git.commit"] != NONE:
        tags["mlflow.source.git.commit"] = tags["git.commit"]
    return tags


def searchable(facts: dict[str, str]) -> dict[str, str]:
    """The facts by which runs are searched, which MLflow keeps as tags of the run.

    `heartseg.tracking.artifacts` keeps all of them as files of the run.
    """
    return {key: value for key, value in facts.items() if not key.startswith(FILED)}


def git_tags(root: Path) -> dict[str, str]:
    """git.commit, git.branch and git.dirty of the working tree, as in `lineage_tags`."""
    if git(root, "rev-parse", "--show-toplevel") is None:
        return {"git.commit": NONE, "git.branch": NONE, "git.dirty": NONE}
    commit = git(root, "rev-parse", "--verify", "HEAD")
    # Without a commit the code stands nowhere.
    dirty = commit is None or bool(_changed(root))
    return {
        "git.commit": commit or NONE,
        "git.branch": git(root, "symbolic-ref", "--short", "HEAD") or NONE,  # none: detached
        "git.dirty": str(dirty).lower(),
    }


def working_patch(root: Path) -> str:
    """What `git apply` needs to make the last commit into the working tree; "" without changes.

    Holds the changes that make a tree dirty in `lineage_tags`, new files of heartseg among them.
    """
    if git(root, "rev-parse", "--verify", "HEAD") is None or not (paths := _changed(root)):
        return ""
    with tempfile.TemporaryDirectory() as folder:
        # In an index of its own, so that what the user has staged stays as it is.
        own = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        git(root, "read-tree", "HEAD", extra=own)
        git(root, "add", "--all", "--", *map(str, paths), extra=own)
        patch = git(root, "diff", "--cached", "--binary", "--no-renames", "HEAD", extra=own)
    return f"{patch}\n\n" if patch else ""  # a binary hunk ends with an empty line


def _changed(root: Path) -> list[Path]:
    """Tracked files that differ from the last commit, and new code; not what DVC writes."""
    top, stages = git(root, "rev-parse", "--show-toplevel"), _locked_stages(root)
    names = (git(root, "diff", "--name-only", "--no-renames", "-z", "HEAD") or "").split("\0")
    changed = {(Path(str(top)) / name).resolve() for name in names if name}
    new = git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", "heartseg")
    changed |= {root.resolve() / name for name in (new or "").split("\0") if name}
    return sorted(p for p in changed if not _is_written_by_dvc(p, root.resolve(), stages))


def git(root: Path, *arguments: str, extra: dict[str, str] | None = None) -> str | None:
    """What git prints; None where there is no git, no repository or no such thing.

    Args:
        root: the folder that git works in.
        arguments: of git.
        extra: environment variables beside the process's own.
    """
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            env=os.environ | (extra or {}),
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        return None
    # Bytes as they are: a patch may hold lines that end otherwise or are no UTF-8.
    text = done.stdout.decode(errors="surrogateescape")
    return text.strip("\n") if done.returncode == 0 else None


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


def lock_digest(root: Path) -> str:
    """MD5 of requirements.lock; "none" where there is none."""
    path = root / REQUIREMENTS
    return file_digest(path) if path.exists() else NONE


def started_from(files: list[Path]) -> dict[str, str]:
    """Tag with the MD5 of the files of weights that a training starts from, if there are any."""
    return {"heartseg.started_from": " ".join(map(file_digest, files))} if files else {}


def environment() -> dict[str, str]:
    """Version by name of all packages that are installed, heartseg apart: its commit says more."""
    found = {str(d.name).lower().replace("_", "-"): d.version for d in distributions()}
    return {name: found[name] for name in sorted(found) if name != "heartseg"}


def find_data(root: Path, md5: str) -> Path | None:
    """The folder of DVC's cache, if that has an object whole.

    Args:
        root: the repository.
        md5: the object's hash; ends with ".dir" for a folder, whose files must then be there too.
    """
    with _open_cache(root, md5, remote=False) as found:
        return None if found is None else Path(found[0].path)


def check_out(root: Path, md5: str, place: Path) -> bool:
    """Bring an object from DVC's cache, or from the default remote, to a place of its own.

    Returns:
        Whether one of them had it; otherwise nothing is written.
    """
    from dvc_data.hashfile.checkout import checkout
    from dvc_objects.fs.local import LocalFileSystem

    with _open_cache(root, md5, remote=True) as found:
        if found is not None:
            cache, content = found
            checkout(str(place), LocalFileSystem(), content, cache, force=True, quiet=True)
        return found is not None


@contextmanager
def _open_cache(root: Path, md5: str, *, remote: bool) -> Iterator[tuple[Any, Any] | None]:
    """DVC's cache and the whole object in it; None where it is not to be had."""
    from dvc.config import ConfigError
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc_data.hashfile import check, load
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_objects.errors import ObjectFormatError

    info, missing = HashInfo("md5", md5), (FileNotFoundError, ObjectFormatError)

    def content(cache: Any) -> Any:
        with suppress(*missing):
            found = load(cache, info)
            check(cache, found)
            return found
        return None

    with ExitStack() as stack:
        found = None
        with suppress(DvcException, ConfigError, OSError):  # no repository, no remote, not there
            repo = stack.enter_context(Repo(str(root)))
            cache = repo.cache.local
            found = content(cache)
            if found is None and remote:
                repo.cloud.pull({info})
                found = content(cache)
                if found is None and info.isdir:  # DVC skips what is in a folder that it knows
                    tree: Any = load(cache, info)
                    repo.cloud.pull({child for _, _, child in tree})
                    found = content(cache)
        yield None if found is None else (cache, found)


def cached_file(cache: Path, md5: str) -> Path:
    """Where the cache's folder keeps a file."""
    return cache / md5[:2] / md5[2:]


def patch_md5(patch: str) -> str:
    """MD5 of a patch's bytes, as in the tag git.patch_md5; "none" for an empty one."""
    content = patch.encode(errors="surrogateescape")
    return hashlib.md5(content, usedforsecurity=False).hexdigest() if patch else NONE


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return NONE
