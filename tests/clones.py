"""A copy of this repository with tiny settings, for tests of the commands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.examples import ROOT

BIN = Path(sys.executable).parent
WARNING = re.compile(r"\.py:\d+: \w*Warning: ")
"""As Python shows it: no user can do anything about one."""


def copy_repository(place: Path) -> Path:
    """The files that git knows (or would), committed in a repository of their own."""
    listed = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place / name)
    (place / "dvc.lock").unlink(missing_ok=True)
    run(["git", "init", "--quiet"], place)
    commit(place, "copy")
    return place


TINY: dict[str, Any] = {
    "pipeline": {"camus": "camus", "mmode": "mmode"},
    "evaluate.bootstrap_samples": 100,
    "register.camus.floor": {},  # two epochs are no good model
    "register.mmode.floor": {},
    "register.mmode-quality.floor": {},
    "phantoms.camus.patients": 8,
    "phantoms.camus.half_sequences": 1,
    "phantoms.mmode.animals": 6,
    "phantoms.mmode.windows_per_animal": 2,
    "phantoms.mmode.window": 128,
    "phantoms.mmode-quality.animals": 10,
    "phantoms.mmode-quality.windows_per_animal": 4,
    "phantoms.mmode-quality.window": 64,
    "recipes.mmode-quality.input_size": 32,
    "recipes.mmode-quality.epochs": 2,
    "recipes.camus.input_size": 48,
    "recipes.camus.batch_size": 4,
    "recipes.camus.epochs": 2,
    "recipes.mmode.input_size": 48,
    "recipes.mmode.batch_size": 4,
    "recipes.mmode.epochs": 2,
    "recipes.mmode.model.filters": 4,
}
"""Settings with which every stage takes seconds."""


def set_params(place: Path, values: dict[str, Any]) -> None:
    """Change params.yaml; keys with dots between their levels. They exist, but in a recipe."""
    path = place / "params.yaml"
    content = yaml.safe_load(path.read_text())
    for key, value in values.items():
        *parents, last = key.split(".")
        section = content
        for parent in parents:
            section = section.setdefault(parent, {}) if parents[0] == "recipes" else section[parent]
        assert last in section or parents[0] == "recipes", key
        section[last] = value
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def commit(place: Path, message: str) -> None:
    run(["git", "add", "--all"], place)
    run(["git", "commit", "--quiet", "--message", message], place)


def environment(place: Path) -> dict[str, str]:
    """Of a person who works in `place` with the environment activated."""
    foreign = ("MLFLOW_", "RAY_", "GIT_", "PYTHON")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    return kept | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(place), str(ROOT)]),  # its own code, or this
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_AUTHOR_NAME": "test",
        "GIT_AUTHOR_EMAIL": "test@localhost",
        "GIT_COMMITTER_NAME": "test",
        "GIT_COMMITTER_EMAIL": "test@localhost",
    }


def run(
    command: list[str] | str,
    place: Path,
    timeout: float = 1200,
    extra: Mapping[str, str] | None = None,
) -> str:
    """Run a command, which must succeed without a library's warning; what it printed on stdout."""
    done = subprocess.run(
        command,
        cwd=place,
        env=environment(place) | dict(extra or {}),
        shell=isinstance(command, str),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert not WARNING.search(done.stderr), f"{command}\n{done.stderr[-3000:]}"
    return done.stdout
