"""The documentation names only commands, options, settings and files that exist."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.core import TyperCommand

from heartseg.__main__ import COMMANDS, app
from heartseg.cli import run_app
from heartseg.config.params import load_params
from heartseg.config.recipe import Recipe
from heartseg.errors import InputError
from tests.examples import ROOT
from tests.pages import PAGES, blocks, command_lines, written_files

FOLDERS = ("heartseg", "tests", "infra", "sweeps", "docs")
PARAMS = load_params(ROOT / "params.yaml")
VALUES: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
MODELS = {f"{PARAMS.tracking.experiment_prefix}{name}" for name in PARAMS.pipeline}


ALL_COMMANDS = [
    pytest.param(page, line, id=f"{page.relative_to(ROOT)}: {line[:60]}")
    for page in PAGES
    for line in command_lines(page)
]


# --- commands ---------------------------------------------------------------------------------


class Parsed(Exception):
    """Raised in place of running a command whose arguments are right."""


def parse(words: list[str]) -> dict[str, Any]:
    """Parse a command line of heartseg, and do not run it.

    Returns:
        The values of the command's arguments and options by name.
    """

    def stop(self: TyperCommand, ctx: Any) -> None:
        raise Parsed(ctx.params)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TyperCommand, "invoke", stop)
        try:
            run_app(app, "heartseg", words)
        except Parsed as parsed:
            return parsed.args[0]
    raise AssertionError(f"heartseg {words} parses no arguments")


def check_heartseg(words: list[str], page: Path) -> None:
    options = parse(words)
    if recipe := options.get("recipe"):
        assert recipe in PARAMS.recipes
    if sweep := options.get("sweep"):
        assert (ROOT / sweep).is_file() or str(sweep) in written_files(page)
    for value in words:
        if value.startswith("models:/"):
            assert re.split("[@/]", value.removeprefix("models:/"))[0] in MODELS


def check_make(words: list[str], page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(words) <= set(targets)


def check_dvc(words: list[str], page: Path) -> None:
    from dvc.cli.parser import get_main_parser

    options = get_main_parser().parse_args(words)
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    if words[0] == "repro":
        for target in options.targets or []:
            stage, _, key = target.partition("@")
            assert key in VALUES[stages[stage]["foreach"].strip("${}")]
    for setting in getattr(options, "set_param", None) or []:
        key, _, value = setting.partition("=")
        check_setting(key, yaml.safe_load(value))


def check_setting(key: str, value: Any) -> None:
    """A setting exists; or, with "+", a recipe may have it. A recipe's name is one."""
    *parents, last = key.removeprefix("+").split(".")
    section = VALUES
    for parent in parents:
        section = section[parent]
    if key.startswith("+"):
        assert parents[0] == "recipes"
        assert last in Recipe.model_fields
    else:
        assert last in section
    if parents == ["pipeline"]:
        assert value in PARAMS.recipes


CHECKS = {"heartseg": check_heartseg, "make": check_make, "dvc": check_dvc}


@pytest.mark.parametrize(("page", "line"), ALL_COMMANDS)
def test_commands_parse(page, line, capsys):
    words = shlex.split(line)
    if words[0] == "source":
        assert words[1:] == [".venv/bin/activate"]
        return
    try:
        CHECKS[words[0]](words[1:], page)
    except SystemExit:
        pytest.fail(capsys.readouterr().err)


@pytest.mark.parametrize(
    "line",
    [
        "heartseg trian camus",
        "heartseg train no-such-recipe",
        "heartseg predict champion --output there",
        "heartseg sweep sweeps/absent.yaml",
        "heartseg pull models:/heartseg-cams@champion --to champion",
        "make repo",
        "dvc repro prepare@cams",
        "dvc exp run -S recipes.camus.learning_rat=0.1",
        "dvc exp run -S pipeline.camus=no-such-recipe",
        "dvc metrics dif",
    ],
)
def test_wrong_commands_are_found(line):
    from dvc.cli import DvcParserError

    words = shlex.split(line)
    with pytest.raises((AssertionError, KeyError, InputError, SystemExit, DvcParserError)):
        CHECKS[words[0]](words[1:], ROOT / "README.md")


def test_inline_commands_exist():
    """In text and tables: `heartseg NAME …`, `python -m heartseg.NAME …`, `make TARGET`."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for page in PAGES:
        for code in re.findall(r"`([^`\n]+)`", page.read_text()):
            if found := re.match(r"(?:python -m heartseg\.|heartseg )([a-z][a-z_-]*)", code):
                assert found[1].replace("_", "-") in COMMANDS, f"{page}: {code}"
            if found := re.fullmatch(r"make ([a-z-]+)", code):
                assert found[1] in targets, f"{page}: {code}"


# --- files, code and links ----------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_exist(page):
    text = page.read_text()
    created = written_files(page)
    for name in re.findall(rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w", text):
        assert (ROOT / name).exists() or name in created, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_work_in_the_repository(page):
    """Those between pages of the site are checked by `make docs` too, with their anchors."""
    for link in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", page.read_text()):
        assert (page.parent / link).resolve().exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks_import_what_exists(page):
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            for module, names in imported(node):
                if module.startswith("heartseg"):
                    assert set(names) <= names_of(module), f"{module}: {names}"
                else:
                    assert importlib.util.find_spec(module), module


def imported(node: ast.AST) -> Iterator[tuple[str, list[str]]]:
    if isinstance(node, ast.Import):
        yield from ((alias.name, []) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.module
        yield node.module, [alias.name for alias in node.names]


def names_of(module: str) -> set[str]:
    """Names that a module of heartseg defines or imports; read, for the import takes seconds."""
    path = ROOT / f"{module.replace('.', '/')}.py"
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def test_metrics_of_the_api_page_exist():
    names = re.findall(r"`(heartseg\.metrics[\w.]+)`", (ROOT / "docs/reference/api.md").read_text())
    assert names
    for name in names:
        module, _, function = name.rpartition(".")
        assert function in names_of(module), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_yaml_blocks_are_settings_that_exist(page):
    for block in blocks(page, "yaml"):
        content = yaml.safe_load(block)
        if "space" in content:  # a sweep's file, which the test of the tutorial runs
            continue
        for path, _ in leaves(content):
            section: Any = VALUES
            for key in path:
                if not isinstance(section, dict):  # train.workers may be a section
                    break
                assert key in section, f"{'.'.join(path)} in {page}"
                section = section[key]


def leaves(content: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from leaves(value, (*path, key))
    else:
        yield path, content


def test_sweep_files_in_the_pages_are_valid(tmp_path):
    from heartseg.config.sweep_file import read_sweep

    found = [block for page in PAGES for block in blocks(page, "yaml") if "\nspace:" in block]
    assert len(found) == 2
    for block in found:
        path = tmp_path / "sweep.yaml"
        path.write_text(block)
        read_sweep(path, PARAMS)


def test_the_readme_stays_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


# --- the generated reference ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def generate():
    """docs/generate.py, as mkdocs loads it."""
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs/generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_setting_is_in_the_reference(generate):
    recipe, config = generate.GENERATED["recipe"](), generate.GENERATED["config"]()
    for key, section in VALUES.items():
        if key in ("pipeline", "recipes"):  # their keys are names
            continue
        text = recipe if key.endswith("_defaults") else config
        for path, _ in leaves(section):
            name = "floor" if "floor" in path else path[-1]  # its keys are metrics
            assert f"\n| `{name}` |" in text, (key, path)


def test_types_and_defaults_of_the_reference(generate):
    text = generate.GENERATED["config"]() + generate.GENERATED["recipe"]()
    rows = [[cell.strip() for cell in row.split("|")] for row in text.splitlines() if "|" in row]
    found = {row[1]: row for row in rows}
    assert found["`overlap`"][2:4] == ["number ≥\xa00, <\xa01", "`0.75`"]  # of recording
    assert found["`case_ids`"][2:4] == ["`plain` or `hashed` or `none`", "`hashed`"]
    assert found["`spacing`"][2:4] == ["list of 2 × number >\xa00 or null", "`null`"]
    assert found["`decoder_skip`"][2:4] == ["true or false", "`true`"]


def test_every_command_has_its_help_in_the_reference(generate):
    text = generate.GENERATED["cli"]()
    for name in (*COMMANDS, "sweep run", "sweep apply", "config show"):
        assert f"\nUsage: heartseg {name} " in text, name


@pytest.mark.parametrize(
    ("link", "page", "expected"),
    [
        ("../CHANGELOG.md", "index.md", "CHANGELOG.md"),
        ("../../infra/faults.md", "how-to/training.md", "../infra/faults.md"),
        ("../camus.md", "how-to/data.md", "../camus.md"),
        ("docs/how-to/serving.md", "SECURITY.md", "how-to/serving.md"),
        ("faults.md", "infra/README.md", "faults.md"),
        ("../images/compare.png", "how-to/registry.md", "../images/compare.png"),
    ],
)
def test_links_are_translated_for_the_site(generate, link, page, expected):
    assert os.path.normpath(generate.site_link(link, page)) == expected
