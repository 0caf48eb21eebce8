"""Provenance from git and DVC: the code, data and packages of a training."""

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
"""Prefixes of the facts that are only in lineage/*.json, because runs are not searched by them."""


def lineage_tags(root: Path, dataset: str, prepared: Path) -> dict[str, str]:
    """Return the tags that identify the exact code and data of a run.

    It also works without git and DVC. Values that are not known are "none".

    Args:
        root: Folder that contains params.yaml; in a temporary experiment of DVC, the copy's.
        dataset: Name of the dataset in params.yaml.
        prepared: Parquet file of the prepared dataset.

    Returns:
        - git.commit and git.branch
        - git.dirty: "true" if a tracked file other than dvc.lock and the outputs of stages has
          changed, or if there is untracked code; otherwise "false"
        - git.patch_md5: MD5 of `working_patch`
        - dvc.source: path of the source
        - dvc.source_md5: MD5 that DVC has recorded for the prepare stage or for `dvc add`
        - dvc.prepared_md5: MD5 of the file `prepared`
        - dvc.prepared_in_lock: "true" if dvc.lock has the same MD5
        - dvc.experiment: name of DVC's experiment
        - heartseg.dataset, heartseg.lock_md5 (MD5 of requirements.lock)
        - version.python and the versions of the main libraries
        - mlflow.user and mlflow.source.git.commit, which MLflow's pages show
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
    """Return the facts by which runs are searched. They become tags of the run in MLflow.

    `heartseg.tracking.artifacts` keeps all of them as files of the run.
    """
    return {key: value for key, value in facts.items() if not key.startswith(FILED)}


def git_tags(root: Path) -> dict[str, str]:
    """Return git.commit, git.branch and git.dirty of the working tree, as in `lineage_tags`."""
    if git(root, "rev-parse", "--show-toplevel") is None:
        return {"git.commit": NONE, "git.branch": NONE, "git.dirty": NONE}
    commit = git(root, "rev-parse", "--verify", "HEAD")
    dirty = commit is None or bool(_changed(root))  # without a commit, no code is recorded
    return {
        "git.commit": commit or NONE,
        "git.branch": git(root, "symbolic-ref", "--short", "HEAD") or NONE,  # detached HEAD
        "git.dirty": str(dirty).lower(),
    }


def working_patch(root: Path) -> str:
    """Return the patch from the last commit to the working tree; "" without changes.

    It contains the changes that count as dirty in `lineage_tags`, including new files in heartseg.
    """
    if git(root, "rev-parse", "--verify", "HEAD") is None or not (paths := _changed(root)):
        return ""
    with tempfile.TemporaryDirectory() as folder:
        # A separate index leaves the user's staged changes alone.
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        git(root, "read-tree", "HEAD", extra=index)
        git(root, "add", "--all", "--", *map(str, paths), extra=index)
        patch = git(root, "diff", "--cached", "--binary", "--no-renames", "HEAD", extra=index)
    return f"{patch}\n\n" if patch else ""  # a binary hunk ends with an empty line


def _changed(root: Path) -> list[Path]:
    """Return changed tracked files and new code, except for files that DVC writes."""
    top, stages = git(root, "rev-parse", "--show-toplevel"), _locked_stages(root)
    names = (git(root, "diff", "--name-only", "--no-renames", "-z", "HEAD") or "").split("\0")
    changed = {(Path(str(top)) / name).resolve() for name in names if name}
    new = git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", "heartseg")
    changed |= {root.resolve() / name for name in (new or "").split("\0") if name}
    return sorted(p for p in changed if not _is_written_by_dvc(p, root.resolve(), stages))


def git(root: Path, *arguments: str, extra: dict[str, str] | None = None) -> str | None:
    """Run git and return its output; None if git is not installed or the command fails.

    Args:
        root: Working folder of git.
        arguments: Arguments of git.
        extra: Additional environment variables.
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
    # Keep all bytes: a patch may contain other line endings, or text that is not UTF-8.
    text = done.stdout.decode(errors="surrogateescape")
    return text.strip("\n") if done.returncode == 0 else None


def _is_written_by_dvc(path: Path, root: Path, stages: dict[str, Any]) -> bool:
    """Return whether a tracked file is dvc.lock or belongs to the output of a stage."""
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
    """Return the MD5 of a dependency or output in dvc.lock; None if it is not there."""
    wanted = Path(os.path.abspath(path))
    for entry in entries:
        if Path(os.path.abspath(root / entry["path"])) == wanted:
            return entry.get("md5")
    return None


def lock_digest(root: Path) -> str:
    """Return the MD5 of requirements.lock; "none" if the file does not exist."""
    path = root / REQUIREMENTS
    return file_digest(path) if path.exists() else NONE


def started_from(files: list[Path]) -> dict[str, str]:
    """Return a tag with the MD5s of the weight files that a training starts from, if any."""
    return {"heartseg.started_from": " ".join(map(file_digest, files))} if files else {}


def environment() -> dict[str, str]:
    """Return the versions of all installed packages by name.

    heartseg is left out, because its commit is more precise.
    """
    found = {str(d.name).lower().replace("_", "-"): d.version for d in distributions()}
    return {name: found[name] for name in sorted(found) if name != "heartseg"}


def find_data(root: Path, md5: str) -> Path | None:
    """Return the folder of DVC's cache if it has a complete object, otherwise None.

    Args:
        root: Root of the repository.
        md5: Hash of the object. The hash of a folder ends with ".dir", and the folder is complete
            if all of its files are in the cache.
    """
    with _open_cache(root, md5, remote=False) as found:
        return None if found is None else Path(found[0].path)


def check_out(root: Path, md5: str, place: Path) -> bool:
    """Copy an object from DVC's cache or default remote to the path `place`.

    Returns:
        Whether the cache or the remote has the object. Otherwise nothing is written.
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
    """Yield DVC's cache and the complete object in it; None if the object is not available."""
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
        with suppress(DvcException, ConfigError, OSError):  # no repository, remote or object
            repo = stack.enter_context(Repo(str(root)))
            cache = repo.cache.local
            found = content(cache)
            if found is None and remote:
                repo.cloud.pull({info})
                found = content(cache)
                if found is None and info.isdir:
                    # DVC skips the files of a folder whose list of files is in the cache.
                    tree: Any = load(cache, info)
                    repo.cloud.pull({child for _, _, child in tree})
                    found = content(cache)
        yield None if found is None else (cache, found)


def cached_file(cache: Path, md5: str) -> Path:
    """Return the path of a file in the cache's folder."""
    return cache / md5[:2] / md5[2:]


def patch_md5(patch: str) -> str:
    """Return the MD5 of a patch, as in the tag git.patch_md5; "none" for an empty patch."""
    content = patch.encode(errors="surrogateescape")
    return hashlib.md5(content, usedforsecurity=False).hexdigest() if patch else NONE


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container, the user may have no name
        return NONE
