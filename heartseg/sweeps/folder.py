"""The folder of a sweep. It is found again when an interrupted sweep continues."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from heartseg.config.params import PARAMS_FILE
from heartseg.errors import InputError
from heartseg.training.run_dir import lock_folder, read_state, update_state

SWEEPS = "sweeps"
TRIALS = "trials"
MAX_FILES = 5
"""Number of changed files that a message lists."""
EXTENDABLE = ("trials", "hours")
"""Keys of a sweep file that may be raised when the sweep continues."""


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()


@contextmanager
def open_sweep_dir(
    runs: Path, name: str, fingerprint: dict[str, Any], *, fresh: bool
) -> Iterator[Path]:
    """Open the folder of a sweep and lock it. Create the folder if the sweep is new.

    Args:
        runs: Absolute path of the folder of all runs.
        name: Name of the sweep file without its ending.
        fingerprint: Everything that determines the results, see `heartseg.sweeps.job.Job`.
        fresh: Whether to archive an existing sweep under its id and start a new one.

    Raises:
        InputError: If the existing sweep has another fingerprint, or if another process uses the
            folder.
    """
    folder = runs / SWEEPS / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder):
        state = read_state(folder)
        changes = list(_changes(state["made_of"], fingerprint)) if state else []
        if state and (fresh or (changes and not (folder / TRIALS).exists())):
            # A sweep without trials is replaced: the user may just have fixed its file.
            shutil.move(folder, folder.with_name(f"{name}-{state['id']}"))
            state, changes = {}, []
        if changes:
            raise InputError(
                f"the sweep in {folder} was started with other settings:\n"
                + "\n".join(f"  {change}" for change in changes)
                + "\nundo these changes to continue it (trials and hours may be raised), or start "
                "a new sweep with --fresh"
            )
        folder.mkdir(exist_ok=True)
        new = {} if state else {"id": uuid.uuid4().hex[:8], "seconds": 0.0}
        update_state(folder, made_of=fingerprint, **new)
        yield folder


def find_sweep_dir(runs: Path, name: str) -> Path:
    """Return the folder of an existing sweep.

    Raises:
        InputError: If the sweep has not been started.
    """
    folder = runs / SWEEPS / name
    if not read_state(folder):
        raise InputError(
            f"{folder} does not exist: the sweep has not been started; run `heartseg sweep` first"
        )
    return folder


def put_aside(folder: Path) -> list[Path]:
    """Return the folders of earlier sweeps of the same file, which --fresh has put aside."""
    ids = {path: read_state(path).get("id") for path in folder.parent.glob(f"{folder.name}-*/")}
    return [path for path, own in ids.items() if own and path.name == f"{folder.name}-{own}"]


def identity(name: str, folder: Path) -> str:
    """Return the unique name of a sweep's study and MLflow run.

    Args:
        name: Name of the sweep file without its ending.
        folder: Folder of the sweep.
    """
    return f"{name}-sweep-{read_state(folder)['id']}"


def trial_dir(folder: Path, number: int) -> Path:
    """Return the folder of a trial's checkpoints and journal."""
    return folder / TRIALS / f"{number:03d}"


def _changes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each difference, except those that follow from another difference."""
    for path, was, now in _differences(old["file"], new["file"], ()):
        if not (path[0] in EXTENDABLE and _is_raised(was, now)):
            yield f"{'.'.join(path)}: was {was!r}, is {now!r}"
    searched = {*old["file"]["space"], *new["file"]["space"]}
    for name, recipe in new[PARAMS_FILE].items():
        # Another recipe and fields that became searched have been reported above.
        for path, was, now in _differences(old[PARAMS_FILE].get(name, recipe), recipe, ()):
            if ABSENT not in (was, now) or ".".join(path) not in searched:
                yield f"{PARAMS_FILE}.{name}.{'.'.join(path)}: was {was!r}, is {now!r}"
    then, now = old.get("contents", {}), new["contents"]
    yield from (f"{path}: its content has changed" for path in now if then.get(path) != now[path])
    then, now = old.get("code", {}), new["code"]
    if files := [path for path in {**then, **now} if then.get(path) != now.get(path)]:
        more = f" and {len(files) - MAX_FILES} more" if len(files) > MAX_FILES else ""
        yield f"the code of heartseg has changed: {', '.join(files[:MAX_FILES])}{more}"


def _differences(
    was: Any, now: Any, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Yield the keys and both values of each difference between nested dictionaries."""
    if was == now:
        return
    if not (isinstance(was, dict) and isinstance(now, dict)):
        yield path, was, now
        return
    other_kind = "name" in was and "name" in now and was["name"] != now["name"]
    for key in dict.fromkeys((*was, *now)):
        if not other_kind or (key in was and key in now):  # samplers have different fields
            yield from _differences(was.get(key, ABSENT), now.get(key, ABSENT), (*path, key))


def _is_raised(was: Any, now: Any) -> bool:
    """Return whether a limit was raised. None stands for no limit."""
    return now is None or (was is not None and now > was)
