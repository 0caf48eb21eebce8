"""The folder of a sweep, by which a sweep that was cut off is found again."""

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
NAMED = 5
"""Changed files that a message names."""
MAY_GROW = ("trials", "hours")
"""Keys of a sweep's file that may be raised while it goes on."""


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()


@contextmanager
def open_sweep_dir(
    runs: Path, name: str, made_of: dict[str, Any], *, fresh: bool
) -> Iterator[Path]:
    """The folder of a sweep: the one that was begun, or a new one.

    Args:
        runs: folder of all runs, absolute.
        name: of the sweep's file.
        made_of: all that decides about the sweep's results, as of `heartseg.sweeps.job.Job`.
        fresh: put what was begun aside, under its id, and start anew.

    Raises:
        InputError: the sweep was begun from something else, or another process works on it.
    """
    folder = runs / SWEEPS / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder):
        begun = read_state(folder)
        changes = list(_changes(begun["made_of"], made_of)) if begun else []
        if begun and (fresh or (changes and not (folder / TRIALS).exists())):
            # Without a trial there is nothing to lose: what was wrong may just be mended.
            shutil.move(folder, folder.with_name(f"{name}-{begun['id']}"))
            begun, changes = {}, []
        if changes:
            raise InputError(
                f"the sweep in {folder} was begun otherwise:\n"
                + "\n".join(f"  {change}" for change in changes)
                + "\nundo that to go on with it (trials and hours may grow), or start anew "
                "by --fresh"
            )
        folder.mkdir(exist_ok=True)
        new = {} if begun else {"id": uuid.uuid4().hex[:8], "seconds": 0.0}
        update_state(folder, made_of=made_of, **new)
        yield folder


def find_sweep_dir(runs: Path, name: str) -> Path:
    """The folder of a sweep that was begun.

    Raises:
        InputError: it was not.
    """
    folder = runs / SWEEPS / name
    if not read_state(folder):
        raise InputError(f"{folder} does not exist: the sweep was not run yet")
    return folder


def put_aside(folder: Path) -> list[Path]:
    """Folders of earlier sweeps of the same file, which --fresh has put aside."""
    others = {path: read_state(path).get("id") for path in folder.parent.glob(f"{folder.name}-*/")}
    return [path for path, its in others.items() if its and path.name == f"{folder.name}-{its}"]


def identity(name: str, folder: Path) -> str:
    """The name of a sweep's study and MLflow run, which no other sweep has.

    Args:
        name: of the sweep's file.
        folder: of the sweep.
    """
    return f"{name}-sweep-{read_state(folder)['id']}"


def trial_dir(folder: Path, number: int) -> Path:
    """Folder of a trial's checkpoint and journal."""
    return folder / TRIALS / f"{number:03d}"


def _changes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """A line for each thing that differs, and none for what only follows from another one."""
    for path, was, now in _differences(old["file"], new["file"], ()):
        if not (path[0] in MAY_GROW and _grew(was, now)):
            yield f"{'.'.join(path)}: {was!r} then, {now!r} now"
    searched = {*old["file"]["space"], *new["file"]["space"]}
    for name, recipe in new[PARAMS_FILE].items():
        # A recipe that only one of them starts from was named above, and so was a searched field.
        for path, was, now in _differences(old[PARAMS_FILE].get(name, recipe), recipe, ()):
            if ABSENT not in (was, now) or ".".join(path) not in searched:
                yield f"{PARAMS_FILE}.{name}.{'.'.join(path)}: {was!r} then, {now!r} now"
    then, now = old.get("contents", {}), new["contents"]
    yield from (f"{path}: its content" for path in now if then.get(path) != now[path])
    then, now = old.get("code", {}), new["code"]
    if files := [path for path in {**then, **now} if then.get(path) != now.get(path)]:
        more = f" and {len(files) - NAMED} more" if len(files) > NAMED else ""
        yield f"the code of heartseg: {', '.join(files[:NAMED])}{more}"


def _differences(
    was: Any, now: Any, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Where nested dictionaries differ: the keys that lead there, and both values."""
    if was == now:
        return
    if not (isinstance(was, dict) and isinstance(now, dict)):
        yield path, was, now
        return
    other_kind = "name" in was and "name" in now and was["name"] != now["name"]
    for key in dict.fromkeys((*was, *now)):
        if not other_kind or (key in was and key in now):  # each sampler has fields of its own
            yield from _differences(was.get(key, ABSENT), now.get(key, ABSENT), (*path, key))


def _grew(was: Any, now: Any) -> bool:
    """None is without limit."""
    return now is None or (was is not None and now > was)
