"""Free what superseded runs hold on this disk, after showing it and asking.

Superseded are: a finished training, where a later one of the same recipe has finished; a training
or cross-validation that was cut off, where its recipe, data, weights to start from or code have
changed since, so that no command goes on with it; a sweep that --fresh has put aside; checkpoints
of trials that have ended and are not the best; results of a sweep that exists no more. What waits
to be sent to MLflow, what a command works on, and MLflow's own files stay.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heartseg.cli import agrees, run_command
from heartseg.config.params import Params, load_params
from heartseg.data.prepared import file_digest
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

RESULT = {"complete", "pruned", "failed"}
"""States of a trial that has ended for good."""


@dataclass(frozen=True)
class Superseded:
    """Something to delete.

    Attributes:
        path: a folder.
        reason: why nothing needs it.
        held_by: the folder of the run or sweep that must not be in use meanwhile; None: none.
    """

    path: Path
    reason: str
    held_by: Path | None

    def size(self) -> int:
        """Bytes of its files."""
        return sum(f.lstat().st_size for f in self.path.rglob("*") if not f.is_dir())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="heartseg clean", description=__doc__)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    options = parser.parse_args(argv)
    root = repository_root(Path.cwd())
    found = list(superseded(root, load_params()))
    if not found:
        print(f"nothing in {root / RUNS} is superseded")
        return
    sizes = [one.size() for one in found]
    for one, size in zip(found, sizes, strict=True):
        print(f"{_megabytes(size):>10}  {one.path.relative_to(root)}  ({one.reason})")
    if not options.yes and not agrees(f"delete these {len(found)}, {_megabytes(sum(sizes))}?"):
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
    """What may be deleted below runs/ and results/sweeps/.

    Args:
        root: the repository.
        params: params.yaml, by which a command would go on with a run.
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
                yield Superseded(path, "finished; a later training of the recipe has, too", path)
        elif changed := _changed(state, params):
            yield Superseded(path, f"cut off; {changed} changed since", path)
    for path in sorted((runs / SWEEPS).glob("*/")):
        if not (state := read_state(path)):
            continue
        if "mlflow_run_id" in state:  # the runs of those put aside before it have been closed
            for aside in put_aside(path):
                yield Superseded(aside, "a sweep put aside by --fresh", aside)
        yield from _checkpoints_of_losers(path)
    for path in sorted((root / sweep_results_dir("")).glob("*/")):
        kept = [runs / SWEEPS / path.name, root / "sweeps" / f"{path.name}.yaml"]
        registered = (path / "registered.json").exists() or not (path / MODEL).exists()
        if registered and not any(other.exists() for other in kept):
            yield Superseded(path, "results of a sweep that exists no more", None)


def _age(path: Path) -> float:
    return (path / STATE).stat().st_mtime


def _is_sent(path: Path, state: dict[str, Any]) -> bool:
    """Whether nothing of a training, or of the folds of a cross-validation, waits for MLflow."""
    if "opening" in state:
        return bool(state.get("sent"))
    return all(read_state(fold).get("sent", True) for fold in path.glob("fold*/"))


def _changed(state: dict[str, Any], params: Params) -> str:
    """What of a run's makings has changed, so that it cannot go on; "" where it can."""
    then = state.get("made_of")
    name = state.get("recipe_name", "").removesuffix("-crossval")
    if then is None:
        return "the code"  # of a version that did not keep it
    if name not in params.recipes:
        return "the recipe"
    recipe = params.recipe(name)
    prepared = prepared_path(recipe.dataset)
    digest = file_digest(prepared) if prepared.exists() else then["data"]  # it may come back
    now = training_inputs(recipe, digest)
    return ", ".join(f"the {key}" for key in now if now[key] != then[key])


def _checkpoints_of_losers(folder: Path) -> Iterator[Superseded]:
    ended = {
        int(path.name): path / CHECKPOINTS
        for path in sorted((folder / TRIALS).glob("*/"))
        if (path / CHECKPOINTS).exists() and read_state(path).get("closed") in RESULT
    }
    if not ended:
        return
    from heartseg.sweeps.study import best_of

    best = best_of(folder, identity(folder.name, folder))
    for number, path in ended.items():
        if any(path.iterdir()) and (best is None or number != best.number):
            yield Superseded(path, "checkpoints of a trial that is not the best", folder)


def _delete(one: Superseded) -> None:
    """Raises FolderInUse where a command works on it."""
    if one.held_by is None:
        shutil.rmtree(one.path)
        return
    with lock_folder(one.held_by):
        shutil.rmtree(one.path)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


if __name__ == "__main__":
    run_command(main)
