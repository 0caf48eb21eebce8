"""Delete superseded runs to free disk space, after showing them and asking for confirmation.

These are superseded: a finished training, if a later training of the same recipe has finished; an
interrupted training or cross-validation, if its recipe, data, initial weights or code have changed
since, so that no command continues it; a sweep put aside by --fresh; checkpoints of finished trials
other than the best; and results of a sweep that no longer exists. Runs that are in use, records
that wait to be sent to MLflow, and the files of MLflow itself are kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from heartseg.cli import confirm, make_app, paragraphs, run_app, run_command
from heartseg.config.params import Params, load_params
from heartseg.errors import InputError
from heartseg.paths import MODEL, prepared_path, sweep_results_dir
from heartseg.sweeps.folder import SWEEPS, TRIALS, identity, put_aside
from heartseg.tracking.client import repository_root
from heartseg.training.run_dir import (
    CHECKPOINTS,
    RUNS,
    STATE,
    FolderInUse,
    lock_folder,
    read_state,
    training_inputs,
)

FINISHED = {"complete", "pruned", "failed"}
"""States of a trial that does not continue."""


@dataclass(frozen=True)
class Superseded:
    """A folder to delete.

    Attributes:
        path: The folder.
        reason: Why nothing needs it.
        held_by: Folder of the run or sweep that must not be in use; None if there is none.
    """

    path: Path
    reason: str
    held_by: Path | None

    def size(self) -> int:
        """Return the size of its files in bytes."""
        return sum(f.lstat().st_size for f in self.path.rglob("*") if not f.is_dir())


app = make_app()


@app.command(help=paragraphs(__doc__))
def clean(
    yes: Annotated[bool, typer.Option("--yes", help="Delete without confirmation.")] = False,
) -> None:
    root = repository_root(Path.cwd())
    found = list(superseded(root, load_params()))
    if not found:
        print(f"nothing in {root / RUNS} is superseded")
        return
    sizes = [one.size() for one in found]
    for one, size in zip(found, sizes, strict=True):
        print(f"{_megabytes(size):>10}  {one.path.relative_to(root)}  ({one.reason})")
    if not yes and not confirm(f"delete these {len(found)}, {_megabytes(sum(sizes))}?"):
        raise InputError("nothing was deleted; answer y, or give --yes")
    freed = 0
    for one, size in zip(found, sizes, strict=True):
        try:
            _delete(one)
        except FolderInUse as error:
            print(f"{one.path.relative_to(root)}: kept ({error})")
        else:
            freed += size
    print(f"freed {_megabytes(freed)}")


def superseded(root: Path, params: Params) -> Iterator[Superseded]:
    """Find what may be deleted below runs/ and results/sweeps/.

    Args:
        root: Repository.
        params: Content of params.yaml, which decides whether a command would continue a run.
    """
    runs = root / RUNS
    states = {path: read_state(path) for path in sorted(runs.glob("*/")) if path.name != SWEEPS}
    newest: dict[str, Path] = {}
    for path, state in states.items():
        name = state.get("recipe_name", "")
        if state.get("finished") and (name not in newest or _age(path) > _age(newest[name])):
            newest[name] = path
    for path, state in states.items():
        if not state or not _is_sent(path, state):
            continue
        if state.get("finished"):
            if path not in newest.values():
                yield Superseded(path, "finished, as has a later training of the recipe", path)
        elif changed := _changed(state, params):
            yield Superseded(path, f"interrupted; {changed} changed since", path)
    for path in sorted((runs / SWEEPS).glob("*/")):
        if not (state := read_state(path)):
            continue
        if "mlflow_run_id" in state:  # runs of sweeps put aside earlier are closed by now
            for aside in put_aside(path):
                yield Superseded(aside, "a sweep put aside by --fresh", aside)
        yield from _checkpoints_of_losers(path)
    for path in sorted((root / sweep_results_dir("")).glob("*/")):
        kept = [runs / SWEEPS / path.name, root / "sweeps" / f"{path.name}.yaml"]
        registered = (path / "registered.json").exists() or not (path / MODEL).exists()
        if registered and not any(other.exists() for other in kept):
            yield Superseded(path, "results of a sweep that no longer exists", None)


def _age(path: Path) -> float:
    return (path / STATE).stat().st_mtime


def _is_sent(path: Path, state: dict[str, Any]) -> bool:
    """Return whether MLflow has all records of a training or of a cross-validation's folds."""
    if "opening" in state:
        return bool(state.get("sent"))
    return all(read_state(fold).get("sent", True) for fold in path.glob("fold*/"))


def _changed(state: dict[str, Any], params: Params) -> str:
    """Return what has changed since a run was interrupted; "" if a command can continue it."""
    then = state.get("made_of")
    name = state.get("recipe_name", "").removesuffix("-crossval")
    if then is None:
        return "the code"  # an earlier version of heartseg did not record it
    if name not in params.recipes:
        return "the recipe"
    from heartseg.data.prepared import file_digest  # imports pandas

    recipe = params.recipe(name)
    prepared = prepared_path(recipe.dataset)
    digest = file_digest(prepared) if prepared.exists() else then["data"]  # it may be restored
    now = training_inputs(recipe, digest)
    return ", ".join(f"the {key}" for key in now if now[key] != then[key])


def _checkpoints_of_losers(folder: Path) -> Iterator[Superseded]:
    ended = {
        int(path.name): path / CHECKPOINTS
        for path in sorted((folder / TRIALS).glob("*/"))
        if (path / CHECKPOINTS).exists() and read_state(path).get("closed") in FINISHED
    }
    if not ended:
        return
    from heartseg.sweeps.study import best_of

    best = best_of(folder, identity(folder.name, folder))
    for number, path in ended.items():
        if any(path.iterdir()) and (best is None or number != best.number):
            yield Superseded(path, "checkpoints of a trial that is not the best", folder)


def _delete(one: Superseded) -> None:
    """Delete a folder.

    Raises:
        FolderInUse: A command uses it.
    """
    if one.held_by is None:
        shutil.rmtree(one.path)
        return
    with lock_folder(one.held_by):
        shutil.rmtree(one.path)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


main = partial(run_app, app, "heartseg clean")

if __name__ == "__main__":
    run_command(main)
