"""MkDocs hook: add generated reference tables and the repository's own pages to the site.

A page of docs/ may contain a marker line such as ``<!-- generated: config -->``; the hook replaces
it with tables made from the code. Pages that live outside docs/ (``OUTSIDE``) join the site.
Links between pages are written as they work in the repository, for example ``../infra/README.md``;
the hook rewrites them for the site.
"""

from __future__ import annotations

import importlib
import io
import os
import posixpath
import re
import types
from contextlib import redirect_stdout, suppress
from inspect import getdoc
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from unittest import mock

import yaml
from annotated_types import Ge, Gt, Le, Lt, MinLen
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from heartseg.__main__ import COMMANDS, app, module_of
from heartseg.cli import build_command, run_app
from heartseg.config import params as config
from heartseg.config import ranges, recipe, sweep_file

ROOT = Path(__file__).parent.parent
OUTSIDE = (
    "infra/README.md",
    "infra/faults.md",
    "infra/writers.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
)
"""Pages of the site that live elsewhere in the repository."""

MARKER = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^)\s#]+)")
BOUNDS = {Ge: "≥", Gt: ">", Le: "≤", Lt: "<"}


# --- hooks of MkDocs -------------------------------------------------------------------------


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name in OUTSIDE:
        content = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    name = page.file.src_uri
    markdown = MARKER.sub(lambda found: GENERATED[found[1]](), markdown)
    return LINK.sub(lambda found: site_link(found[1], name), markdown)


def site_link(link: str, page: str) -> str:
    """Translate a link that is relative in the repository into one that is relative in the site.

    Args:
        link: The link as written, without anchor.
        page: Path of the page in the site that contains the link.
    """
    source = page if page in OUTSIDE else f"docs/{page}"
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    if target not in OUTSIDE and not target.startswith("docs/"):
        return link
    return posixpath.relpath(target.removeprefix("docs/"), posixpath.dirname(page) or ".")


# --- generated content -----------------------------------------------------------------------


def commands() -> str:
    """Return a section for each command and subcommand with the text of its ``--help``."""
    parts = [help_block([])]
    for name in COMMANDS:
        command = build_command(importlib.import_module(module_of(name)).app)
        for words in [[name], *([name, inner] for inner in getattr(command, "commands", ()))]:
            parts.append(f"## heartseg {' '.join(words)}\n\n{help_block(words)}")
    return "\n".join(parts)


def help_block(words: list[str]) -> str:
    """Return what a command prints for ``--help``, as a fenced block."""
    printed = io.StringIO()
    with (
        mock.patch.dict(os.environ, {"COLUMNS": "92"}),
        redirect_stdout(printed),
        suppress(SystemExit),
    ):
        run_app(app, "heartseg", [*words, "--help"])
    return f"```text\n{printed.getvalue()}```\n"


def sections_of_params() -> str:
    """Return a table for each section of params.yaml, except for the recipes' fields."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    parts = ["## Top level\n\n" + table(config.Params, {}, skip=())]
    for name, field in config.Params.model_fields.items():
        key = field.alias or name
        if key in ("recipe_defaults", "model_defaults", "recipes"):
            continue
        for kind in models_in(field.annotation):
            parts += tables(kind, values.get(key), key)
    return "\n".join(parts)


def fields_of_recipe() -> str:
    """Return tables of a recipe's fields, of the defaults and of each network."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    defaults = values["recipe_defaults"]
    own = {name: recipe.Recipe.model_fields[name] for name in recipe.Recipe.__annotations__}
    parts = ["## Fields that every recipe sets\n\n" + rows(own, {})]
    parts += tables(recipe.RecipeDefaults, defaults, "recipe_defaults")
    for name, field in recipe.ModelDefaults.model_fields.items():
        for kind in models_in(field.annotation):
            parts += tables(kind, values["model_defaults"][name] | {"name": name}, f"model: {name}")
    return "\n".join(parts)


def fields_of_sweep() -> str:
    """Return tables of a sweep file, of its samplers, pruners, ranges and resources."""
    parts = ["## The file\n\n" + table(sweep_file.SweepFile, {}, skip=())]
    for title, kinds in (
        ("sampler", ("TPE", "CmaEs", "Random", "Grid")),
        ("pruner", ("Asha", "Median", "NoPruner")),
        ("resources", ("Resources",)),
    ):
        for kind in (getattr(sweep_file, name) for name in kinds):
            name = kind.model_fields.get("name")
            shown = f"{title}: {get_args(name.annotation)[0]}" if name else title
            parts += tables(kind, {}, shown)
    for kind in (ranges.Choice, ranges.Uniform, ranges.LogUniform, ranges.Integers):
        parts += tables(kind, {}, f"range: {kind.__name__.lower()}")
    return "\n".join(parts)


GENERATED = {
    "config": sections_of_params,
    "recipe": fields_of_recipe,
    "sweep": fields_of_sweep,
    "cli": commands,
}


def tables(kind: type[BaseModel], values: Any, title: str) -> list[str]:
    """Return the table of a section, and of the sections inside it, each with a heading.

    Args:
        kind: The class of the section.
        values: Its content in params.yaml, from which the column of defaults is taken.
        title: Text of the heading.
    """
    values = values if isinstance(values, dict) else {}
    doc = getdoc(kind) if kind.__doc__ and kind.__doc__ != BaseModel.__doc__ else ""
    parts = [f"## {title}\n\n" + (f"{doc}\n\n" if doc else "") + table(kind, values)]
    for name, field in kind.model_fields.items():
        key = field.alias or name
        for inner in models_in(field.annotation):
            parts += tables(inner, values.get(key), f"{title}.{key}")
    return parts


def table(kind: type[BaseModel], values: dict[str, Any], skip: tuple[str, ...] = ("name",)) -> str:
    return rows({k: f for k, f in kind.model_fields.items() if k not in skip}, values)


def rows(fields: dict[str, FieldInfo], values: dict[str, Any]) -> str:
    """Return a Markdown table with name, type, default and description of each field."""
    with_defaults = bool(values)
    head = ["key", "type", *(["default"] if with_defaults else []), "meaning"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, field in fields.items():
        key = field.alias or name
        default = f"`{shown(values[key])}`" if key in values else ""
        if models_in(field.annotation) and isinstance(values.get(key), dict):
            default = "see below"
        cells = [
            f"`{key}`",
            type_of(field.annotation, field.metadata),
            *([default] if with_defaults else []),
            " ".join((field.description or "").split()),
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def shown(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).replace("...", "").strip()


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the sections that a type contains, without those in dicts and lists."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType, Annotated):
        return [kind for one in get_args(annotation) for kind in models_in(one)]
    return []


def type_of(annotation: Any, metadata: Any = ()) -> str:
    """Return a type in words that a reader of YAML knows."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_of(inside[0], inside[1:])
    bounds = bounds_of(metadata)
    if origin is Literal:
        return " or ".join(f"`{shown(one)}`" for one in inside)
    if origin in (Union, types.UnionType):
        text = " or ".join(dict.fromkeys(type_of(one) for one in inside))
    elif origin is list:
        text = f"list of {type_of(inside[0])}"
    elif origin is tuple:
        text = f"list of {len(inside)} × {type_of(inside[0])}"
    elif origin is dict:
        text = f"map of {type_of(inside[0])} to {type_of(inside[1])}"
    elif annotation is type(None):
        text = "null"
    else:
        text = {bool: "true or false", int: "integer", float: "number", str: "text"}.get(
            annotation, "path" if annotation is Path else "section"
        )
    return text + bounds


def bounds_of(metadata: Any) -> str:
    parts = []
    for one in metadata:
        for bound in one.metadata if isinstance(one, FieldInfo) else [one]:
            for kind, sign in BOUNDS.items():
                if isinstance(bound, kind):
                    number = getattr(bound, kind.__name__.lower())
                    parts.append(f"{sign}\u00a0{int(number) if number == int(number) else number}")
            if isinstance(bound, MinLen) and bound.min_length > 1:
                parts.append(f"(at least {bound.min_length})")
    return f" {', '.join(parts)}" if parts else ""
