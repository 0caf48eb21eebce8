"""A recorded state of the repository in a temporary folder: code by git, data by DVC's hashes."""

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
    """A temporary git worktree at a commit, with a patch applied; removed at the end.

    Args:
        root: the repository; a folder below git's own top works too.
        commit: its hash.
        patch: for `git apply`; "" for none.
        keep: leave it.

    Yields:
        The folder that `root` is in the worktree.

    Raises:
        InputError: git does not have the commit, or the patch does not fit to it.
    """
    _find(root, commit)
    folder = Path(tempfile.mkdtemp(prefix="heartseg-reproduce-"))
    place = folder / "worktree"
    try:
        if git(root, "worktree", "add", "--detach", str(place), commit) is None:
            raise InputError(f"git could not make a worktree of {commit} in {folder}")
        _apply(place, patch)
        yield place / (git(root, "rev-parse", "--show-prefix") or "")
    finally:
        if not keep:
            git(root, "worktree", "remove", "--force", str(place))
            shutil.rmtree(folder, ignore_errors=True)
            git(root, "worktree", "prune")


def describe_code(root: Path, commit: str, patch: str) -> str:
    """Tell people what `open_worktree` would check out: author, date and subject of the commit, and
    the lines that the patch adds and deletes in each file.

    Raises:
        InputError: git does not have the commit, or cannot read the patch.
    """
    _find(root, commit)
    told = git(
        root, "log", "-1", "--no-show-signature", "--format=%H%nby %an <%ae>, %ad%n%s", commit
    )
    if not patch:
        return f"commit {told}\nno uncommitted changes"
    top = Path(git(root, "rev-parse", "--show-toplevel") or root)  # below it git skips other files
    changes = _git_apply(top, patch, "--numstat", "--summary")  # --stat shortens long paths
    return f"commit {told}\nuncommitted changes (lines added, deleted, file):\n{changes}"


def _find(root: Path, commit: str) -> None:
    """Raise InputError unless the text is the hash of a commit that is here.

    A branch, which may have moved since, or an option of git is no hash.
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
    """What `git apply` prints."""
    done = subprocess.run(
        ["git", "-C", str(place), "apply", *options, "-"],
        input=patch.encode(errors="surrogateescape"),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()
        raise InputError(
            f"the recorded patch.diff does not fit to its commit: {reason}; see it in MLflow, in "
            "the run's artifacts below lineage/"
        )
    return done.stdout.decode(errors="replace").rstrip("\n")


def restore_data(
    root: Path, place: Path, tags: dict[str, str], run: Callable[[str, str], None]
) -> str:
    """Bring the prepared dataset of the recorded hash into a worktree.

    It comes from DVC's cache or remote, or is the one in the repository; otherwise it is prepared
    again, from the source of the recorded hash, the source in the repository or new phantoms.

    Args:
        root: the repository.
        place: its worktree.
        tags: of the training's run.
        run: runs a stage in the worktree, by name and dataset.

    Returns:
        Where it came from.

    Raises:
        InputError: none of these gives the recorded hash.
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
    (own := place / source).parent.mkdir(parents=True, exist_ok=True)
    inside = own.resolve().is_relative_to(place.resolve())  # what lies elsewhere stays untouched
    if inside and source_md5 != NONE and check_out(root, source_md5, own):
        origin = again + f"the source of the recorded hash {source_md5}"
    elif source == phantom_dir(dataset):
        run("phantom", dataset)
        origin = again + "new phantoms"
    elif (root / source).exists():
        if inside:
            os.symlink((root / source).resolve(), own)
        origin = again + f"{source} as it is now"
    else:
        raise InputError(_missing(prepared, tags, f"{source} does not exist either"))
    run("prepare", dataset)
    if (found := file_digest(place / prepared)) != wanted:
        raise InputError(_missing(prepared, tags, f"{origin}, it is another one, {found}"))
    return origin


def _missing(prepared: Path, tags: dict[str, str], reason: str) -> str:
    return (
        f"{prepared} of the recorded hash {tags['dvc.prepared_md5']} is neither in DVC's cache nor "
        f"in its remote nor in this repository, and {reason}. Push it from where it was made "
        f"(`dvc push`), or bring {tags.get('dvc.source')} of the hash "
        f"{tags.get('dvc.source_md5')} here"
    )


def restore_recipe(
    root: Path, place: Path, recipe: dict[str, Any], started_from: list[str]
) -> None:
    """Make the recorded recipe one of the worktree's, with the weights that it starts from.

    It goes by a name of its own: a trial of a sweep has none in params.yaml. Recipe and file are
    not checked by today's rules, since the code of that time reads them.

    Args:
        root: the repository.
        place: its worktree.
        recipe: as the run kept it.
        started_from: MD5 of the files of weights.

    Raises:
        InputError: the weights are not there.
    """
    change_yaml(place / PARAMS_FILE, {("recipes", REPRODUCED): recipe})
    for key in ("weights", "backbone_weights"):
        name = recipe["model"].get(key)
        if name is not None and Path(name).suffix:  # torchvision's names have none
            _put_weights(root, place, name, started_from)


def _put_weights(root: Path, place: Path, name: str, wanted: list[str]) -> None:
    file = next((p for p in (place / name, root / name) if _has_digest(p, wanted)), None)
    if file is None:
        raise InputError(
            f"{name}, from which the model was trained, is not here with its recorded hash "
            f"({' or '.join(wanted)}); bring it back"
        )
    if file != place / name:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place / name)


def _has_digest(path: Path, wanted: list[str]) -> bool:
    return path.is_file() and file_digest(path) in wanted
