"""A temporary worktree with the recorded code, data and recipe of a training."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from heartseg.config.params import PARAMS_FILE
from heartseg.config.yaml_file import change_yaml
from heartseg.data.prepared import file_digest
from heartseg.errors import InputError
from heartseg.paths import phantom_dir, prepared_path
from heartseg.tracking.provenance import NONE, check_out, git

_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

REPRODUCED = "reproduced"
"""Name of the recipe in the worktree's params.yaml."""


@contextmanager
def open_worktree(root: Path, commit: str, patch: str, *, keep: bool) -> Iterator[Path]:
    """Create a temporary git worktree at a commit and apply a patch to it.

    Args:
        root: Root of the repository, or a subfolder of git's top folder.
        commit: Hash of the commit.
        patch: Patch for `git apply`; "" for none.
        keep: Whether to keep the worktree instead of removing it at the end.

    Yields:
        The folder of the worktree that corresponds to `root`.

    Raises:
        InputError: If git does not have the commit or the patch does not apply.
    """
    _check_commit(root, commit)
    folder = Path(tempfile.mkdtemp(prefix="heartseg-reproduce-"))
    place = folder / "worktree"
    try:
        if git(root, "worktree", "add", "--detach", str(place), commit) is None:
            raise InputError(f"git could not create a worktree of {commit} in {folder}")
        _apply(place, patch)
        yield place / (git(root, "rev-parse", "--show-prefix") or "")
    finally:
        if not keep:
            git(root, "worktree", "remove", "--force", str(place))
            shutil.rmtree(folder, ignore_errors=True)
            git(root, "worktree", "prune")


def describe_code(root: Path, commit: str, patch: str) -> str:
    """Describe the code that `open_worktree` would check out.

    Returns:
        Author, date and subject of the commit, and the numbers of lines that the patch adds and
        deletes in each file.

    Raises:
        InputError: If git does not have the commit or cannot read the patch.
    """
    _check_commit(root, commit)
    summary = git(
        root, "log", "-1", "--no-show-signature", "--format=%H%nby %an <%ae>, %ad%n%s", commit
    )
    if not patch:
        return f"commit {summary}\nno uncommitted changes"
    # In a subfolder, git ignores the files outside of it.
    top = Path(git(root, "rev-parse", "--show-toplevel") or root)
    changes = _git_apply(top, patch, "--numstat", "--summary")  # --stat shortens long paths
    return f"commit {summary}\nuncommitted changes (lines added, deleted, file):\n{changes}"


def _check_commit(root: Path, commit: str) -> None:
    """Raise InputError unless `commit` is the hash of a commit of this repository.

    The name of a branch, which may have moved, or an option of git is not accepted.
    """
    known = _HASH.fullmatch(commit) and git(root, "cat-file", "-e", f"{commit}^{{commit}}")
    if known is None:
        raise InputError(
            f"this repository has no commit {commit}; fetch it (`git fetch --all`), or run in the "
            "repository that trained the model"
        )


def _apply(place: Path, patch: str) -> None:
    if patch:
        _git_apply(place, patch, "--whitespace=nowarn")


def _git_apply(place: Path, patch: str, *options: str) -> str:
    """Run `git apply` with a patch and return its output."""
    done = subprocess.run(
        ["git", "-C", str(place), "apply", *options, "-"],
        input=patch.encode(errors="surrogateescape"),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()
        raise InputError(
            f"the recorded patch.diff does not apply to its commit: {reason}; see the file in the "
            "folder lineage of the run's artifacts in MLflow"
        )
    return done.stdout.decode(errors="replace").rstrip("\n")


def restore_data(
    root: Path, place: Path, tags: dict[str, str], run: Callable[[str, str], None]
) -> str:
    """Put the prepared dataset with the recorded hash into a worktree.

    It is taken from DVC's cache or remote, or from the repository. If neither has it, it is
    prepared again from the source with the recorded hash, from new phantoms, or from the source in
    the repository.

    Args:
        root: Root of the repository.
        place: Folder of the worktree.
        tags: Tags of the training's run.
        run: Function that runs a stage in the worktree, given its name and the dataset.

    Returns:
        A description of the origin of the data.

    Raises:
        InputError: If none of these has the recorded hash.
    """
    dataset, wanted = tags["heartseg.dataset"], tags["dvc.prepared_md5"]
    prepared = prepared_path(dataset)
    (place / prepared).parent.mkdir(parents=True, exist_ok=True)
    if check_out(root, wanted, place / prepared):
        return "from DVC"
    if (root / prepared).exists() and file_digest(root / prepared) == wanted:
        os.symlink((root / prepared).resolve(), place / prepared)
        return f"{prepared} of this repository"

    source, source_md5 = Path(tags.get("dvc.source", NONE)), tags.get("dvc.source_md5", NONE)
    again = "prepared again from "
    (target := place / source).parent.mkdir(parents=True, exist_ok=True)
    inside = target.resolve().is_relative_to(place.resolve())  # never write outside the worktree
    if inside and source_md5 != NONE and check_out(root, source_md5, target):
        origin = again + f"the source of the recorded hash {source_md5}"
    elif source == phantom_dir(dataset):
        run("phantom", dataset)
        origin = again + "new phantoms"
    elif (root / source).exists():
        if inside:
            os.symlink((root / source).resolve(), target)
        origin = again + f"{source} as it is now"
    else:
        raise InputError(_missing(prepared, tags, f"{source} does not exist either"))
    run("prepare", dataset)
    if (found := file_digest(place / prepared)) != wanted:
        raise InputError(_missing(prepared, tags, f"{origin}, it has another hash, {found}"))
    return origin


def _missing(prepared: Path, tags: dict[str, str], reason: str) -> str:
    return (
        f"{prepared} with the recorded hash {tags['dvc.prepared_md5']} is neither in DVC's cache "
        f"nor in its remote nor in this repository, and {reason}. Push it from the machine that "
        f"prepared it (`dvc push`), or copy {tags.get('dvc.source')} with the hash "
        f"{tags.get('dvc.source_md5')} here"
    )


def restore_recipe(
    root: Path, place: Path, recipe: dict[str, Any], started_from: list[str]
) -> None:
    """Add the recorded recipe to params.yaml of a worktree, and the weights that it starts from.

    The recipe gets the name `REPRODUCED`, because a trial of a sweep has no name in params.yaml.
    It is not validated here, because the recorded code reads it by its own rules.

    Args:
        root: Root of the repository.
        place: Folder of the worktree.
        recipe: Recorded recipe.
        started_from: MD5s of the weight files.

    Raises:
        InputError: If a weight file does not exist with its recorded hash.
    """
    change_yaml(place / PARAMS_FILE, {("recipes", REPRODUCED): recipe})
    for key in ("weights", "backbone_weights"):
        name = recipe["model"].get(key)
        if name is not None and Path(name).suffix:  # names of torchvision's weights have none
            _put_weights(root, place, name, started_from)


def _put_weights(root: Path, place: Path, name: str, wanted: list[str]) -> None:
    file = next((p for p in (place / name, root / name) if _has_digest(p, wanted)), None)
    if file is None:
        raise InputError(
            f"{name}, from which the training started, does not exist with its recorded hash "
            f"({' or '.join(wanted)}); restore the file"
        )
    if file != place / name:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place / name)


def _has_digest(path: Path, wanted: list[str]) -> bool:
    return path.is_file() and file_digest(path) in wanted
