"""Rooms import one way, and each engine is imported in its own room only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.examples import ROOT

PACKAGE = ROOT / "heartseg"
ALLOWED = {
    "ray": ("cluster/*.py", "serving/ray_app.py"),
    "mlflow": ("tracking/*.py", "models/inference.py"),
    "dvc": ("tracking/provenance.py",),
}


ORDER = (
    ("datasets", "text", "gc_tuning"),
    ("errors",),
    ("paths",),
    ("config",),
    ("data",),
    ("metrics",),
    ("models",),
    ("report", "training"),
    ("checks",),
    ("tracking",),
    ("evaluation",),
    ("prediction",),
    ("cluster",),
    ("folds", "sweeps", "serving"),
)
"""Rooms and the files that they share. Each imports from those above it only."""


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


def room_imports(path: Path) -> set[str]:
    """The rooms that a file of a room imports, its own left out."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "heartseg":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("heartseg."):
            found.add(str(node.module).split(".")[1])
    return found - {path.relative_to(PACKAGE).parts[0]}


def test_every_room_has_its_place():
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert rooms <= {name for names in ORDER for name in names}


@pytest.mark.parametrize("place", range(len(ORDER)))
def test_rooms_import_from_those_above_them_only(place):
    above = {name for names in ORDER[:place] for name in names}
    wrong = [
        f"{path.relative_to(ROOT)} imports {', '.join(sorted(strangers))}"
        for name in ORDER[place]
        for path in sorted([*(PACKAGE / name).rglob("*.py"), PACKAGE / f"{name}.py"])
        if path.exists()
        and path.name != "__main__.py"  # a command
        and (strangers := room_imports(path) - above)
    ]
    assert wrong == []


def test_files_stay_short():
    long = {
        str(path.relative_to(ROOT)): lines
        for path in PACKAGE.rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 350
    }
    assert long == {}
