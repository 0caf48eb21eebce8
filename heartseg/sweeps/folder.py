"""The folder of a sweep, by which a sweep that was cut off is found again."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from heartseg.errors import InputError
from heartseg.nested import leaves
from heartseg.training.run_dir import hold, read_state, update_state

SWEEPS = "sweeps"
TRIALS = "trials"
MAY_GROW = ("trials", "hours")
"""Keys of a sweep's file that may be raised while it goes on."""


@contextmanager
def open_sweep_dir(
    runs: Path, name: str, made_of: dict[str, Any], *, fresh: bool
) -> Iterator[Path]:
    """The folder of a sweep: the one that was begun, or a new one.

    Args:
        runs: folder of all runs, absolute.
        name: of the sweep's file.
        made_of: all that decides about the sweep's results; its file's content under "file".
        fresh: put what was begun aside, under its id, and start anew.

    Raises:
        InputError: the sweep was begun from something else, or another process works on it.
    """
    folder = runs / SWEEPS / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with hold(folder):
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
    return [path for path in folder.parent.glob(f"{folder.name}-*/") if read_state(path)]


def trial_dir(folder: Path, number: int) -> Path:
    """Folder of a trial's checkpoint and journal."""
    return folder / TRIALS / f"{number:03d}"


def _changes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    before, after = dict(leaves(old)), dict(leaves(new))
    for key in dict.fromkeys((*before, *after)):
        was, now = before.get(key), after.get(key)
        if was != now and not (key[0] == "file" and key[1] in MAY_GROW and _grew(was, now)):
            name = ".".join(key[1:] if key[0] == "file" else key)
            yield f"{name}: {was!r} then, {now!r} now"


def _grew(was: float | None, now: float | None) -> bool:
    """None is without limit."""
    return now is None or (was is not None and now > was)
