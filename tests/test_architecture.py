"""Each engine is imported in its own room only, so that it can be swapped there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.examples import ROOT

PACKAGE = ROOT / "heartseg"
ALLOWED = {
    "ray": ("training/ray_*.py", "sweep.py", "serving/ray_app.py"),
    "mlflow": ("tracking/*.py", "models/packaged.py"),
    "dvc": ("tracking/lineage.py",),
}


def imported_roots(path: Path) -> set[str]:
    roots = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            roots.add(node.module.split(".")[0])
    return roots


@pytest.mark.parametrize("engine", ALLOWED)
def test_engine_is_imported_in_its_room_only(engine):
    users = [p.relative_to(PACKAGE) for p in PACKAGE.rglob("*.py") if engine in imported_roots(p)]
    strangers = [p for p in users if not any(p.match(pattern) for pattern in ALLOWED[engine])]
    assert strangers == []


def test_files_stay_short():
    long = {
        str(path.relative_to(ROOT)): lines
        for path in PACKAGE.rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 350
    }
    assert long == {}
