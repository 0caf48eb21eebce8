"""dvc.yaml names the code that its stages run, so that a mended fault reaches the results."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

from heartseg.paths import WEIGHTS
from tests.examples import ROOT

ROOMS = ("data", "datasets", "metrics", "evaluation", "models", "training", "cluster", "report")
"""What can change a stage's outputs. Tracking, configuration and paths cannot."""


def imported(module: Path) -> set[Path]:
    """Files of our rooms that a module imports, wherever in it."""
    files = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                path = ROOT / Path(*name.split("."))
                files |= {f for f in (path.with_suffix(".py"), path / "__init__.py") if f.exists()}
    return {f for f in files if f.relative_to(ROOT / "heartseg").parts[0] in ROOMS}


def reached(module: Path) -> set[Path]:
    found: set[Path] = set()
    pending = [module]
    while pending:
        new = imported(pending.pop()) - found
        found |= new
        pending += new
    return {f.relative_to(ROOT) for f in found if f.name != "__init__.py"}


@pytest.mark.parametrize("stage", ["phantom", "prepare", "train", "evaluate", "register"])
def test_a_stage_depends_on_the_code_it_runs(stage):
    text = (ROOT / "dvc.yaml").read_text()
    deps = [Path(d) for d in yaml.safe_load(text)["stages"][stage]["do"]["deps"]]
    assert Path(f"heartseg/{stage}.py") in deps
    missing = {
        file for file in reached(ROOT / f"heartseg/{stage}.py")
        if not any(file.is_relative_to(dep) for dep in deps)
    }  # fmt: skip
    assert missing == set()


def test_every_dependency_on_code_exists():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
    code = {d for stage in stages for d in stage["do"]["deps"] if d.startswith("heartseg/")}
    assert [d for d in sorted(code) if not (ROOT / d).exists()] == []


def test_training_depends_on_the_folder_of_weights_of_its_dataset():
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["train"]["do"]
    assert f"{WEIGHTS}/${{key}}" in stage["deps"]
    for dataset in yaml.safe_load((ROOT / "params.yaml").read_text())["pipeline"]:
        assert (ROOT / WEIGHTS / dataset).is_dir()
