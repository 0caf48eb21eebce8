"""Write the winning values of a sweep into params.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from heartseg.config.params import PARAMS_FILE, load_params
from heartseg.config.sweep_file import RECIPE, read_sweep
from heartseg.config.yaml_file import change_yaml
from heartseg.errors import InputError
from heartseg.sweeps.folder import find_sweep_dir, identity
from heartseg.sweeps.study import best_of
from heartseg.tracking.client import repository_root
from heartseg.training.run_dir import RUNS, read_state


def apply_winner(path: Path) -> None:
    """Write the winning values of a sweep into params.yaml, keeping its comments.

    Args:
        path: File of the sweep.

    Raises:
        InputError: No trial finished, or the file names another recipe than the sweep that was run.
    """
    params = load_params()
    sweep = read_sweep(path, params)
    folder = find_sweep_dir(repository_root(Path.cwd()) / RUNS, path.stem)
    swept = read_state(folder)["made_of"]["file"]["recipe"]
    if swept != sweep.recipe:
        raise InputError(
            f"{folder} is a sweep of recipe {swept}, but {path} now names {sweep.recipe}; name "
            f"{swept} again, or run the sweep first"
        )
    best = best_of(folder, identity(path.stem, folder))
    if best is None:
        raise InputError(f"{folder}: no trial has finished yet; run `heartseg sweep {path}`")
    values = dict(best.params)
    name = str(values.pop(RECIPE, sweep.recipe))
    changes: dict[tuple[str, ...], Any] = {
        ("recipes", name, *field.split(".")): value for field, value in values.items()
    }
    changes["pipeline", params.recipe(name).dataset] = name
    change_yaml(Path(PARAMS_FILE), changes)
    print(f"{PARAMS_FILE}: recipes.{name} has the values of trial {best.number:02d}: {values}")
