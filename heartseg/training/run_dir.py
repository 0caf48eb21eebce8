"""The folder of a training run, by which a run that was cut off is found again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from heartseg.config import Recipe

RUNS = "runs"
STATE = "run.json"


def open_run_dir(runs: Path, name: str, recipe: Recipe, data_digest: str) -> Path:
    """The folder for training `recipe` on the data of that digest.

    The same recipe on the same data finds the folder of the run that was cut off; a finished
    one is emptied, since asking again for a finished training means to do it again.

    Args:
        runs: folder of all runs, absolute.
        name: of the recipe.
        recipe: what is trained.
        data_digest: of the prepared dataset.
    """
    content = json.dumps([recipe.model_dump(mode="json"), data_digest], sort_keys=True)
    folder = runs / f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:10]}"
    if read_state(folder).get("finished"):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def read_state(folder: Path) -> dict[str, Any]:
    """What is known of the run: its MLflow run id, and whether it is finished."""
    path = folder / STATE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def update_state(folder: Path, **values: Any) -> None:
    """Add to the run's state, whole or not at all."""
    temporary = folder / f".{STATE}.tmp"
    temporary.write_text(json.dumps(read_state(folder) | values, indent=1), encoding="utf-8")
    os.replace(temporary, folder / STATE)
