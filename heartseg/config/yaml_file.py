"""A YAML file as a validated object, with complaints that a person can act on."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML, RoundTripRepresenter, ScalarNode
from ruamel.yaml.comments import CommentedMap

from heartseg.errors import InputError
from heartseg.paths import write_atomically

Model = TypeVar("Model", bound=BaseModel)

RENAMED = {"when_down": "offline", "first": "initial_points"}
"""Keys of earlier versions, and what they are called now."""
MOST_VALUES = 100_000
"""Of a file; a few lines of nested aliases stand for any number ("billion laughs")."""


def read_yaml_as(kind: type[Model], path: Path) -> Model:
    """Read a file and check it against a pydantic model.

    Raises:
        InputError: the file is missing, is no YAML, or has a wrong key or value; all of them
            are named, each wrong key with the nearest right one.
    """
    content = _read_yaml(path)
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise InputError(_explain(error, kind, path)) from None


def change_yaml(path: Path, changes: Mapping[tuple[str, ...], Any]) -> None:
    """Set values in a file that exists, whole or not at all; comments and order are kept.

    Args:
        path: of the file.
        changes: new values by the keys that lead to them; sections that are missing are made.
    """
    yaml_file = YAML()  # PyYAML would lose the comments
    yaml_file.preserve_quotes = True
    yaml_file.width = 4096
    # It would leave an empty place where the file says null.
    yaml_file.representer.add_representer(type(None), _represent_null)
    content = yaml_file.load(path.read_text(encoding="utf-8"))
    for keys, value in changes.items():
        place = content
        for key in keys[:-1]:
            if key not in place:
                _add(place, key, CommentedMap())
            place = place[key]
        if keys[-1] in place:
            place[keys[-1]] = value
        else:
            _add(place, keys[-1], value)
    write_atomically(lambda temporary: yaml_file.dump(content, temporary), path)


def _add(section: Any, key: str, value: Any) -> None:
    """Add a key at the end; in a section of several lines before its last key, with which ruamel
    keeps the comments that follow the section."""
    if section.fa.flow_style() or not section:
        section[key] = value
    else:
        section.insert(len(section) - 1, key, value)


def _represent_null(representer: RoundTripRepresenter, value: None) -> ScalarNode:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def _read_yaml(path: Path) -> Any:
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        tree = loader.get_single_node()
        if _written_out(tree, {}) > MOST_VALUES:
            raise InputError(f"{path} has more than {MOST_VALUES} values; remove aliases (*name)")
        return None if tree is None else loader.construct_document(tree)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; run from the root of the repository") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except RecursionError:
        raise InputError(f"{path} is not valid YAML: too many levels") from None
    except Exception as error:  # PyYAML raises many kinds on dates, numbers and tags
        raise InputError(f"{path} is not valid YAML: {error}") from None


def _written_out(node: yaml.Node | None, known: dict[int, float]) -> float:
    """How many values a tree would have without aliases; infinite where one contains itself."""
    if node is None:
        return 0
    if id(node) not in known:
        known[id(node)] = math.inf  # until its parts are counted
        parts: list[Any] = [] if isinstance(node, yaml.ScalarNode) else node.value
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in parts for part in pair]
        known[id(node)] = 1 + sum(_written_out(part, known) for part in parts)
    return known[id(node)]


def _explain(error: ValidationError, kind: type[BaseModel], path: Path) -> str:
    lines = []
    for fault in error.errors():
        location = fault["loc"]
        key = ".".join(str(part) for part in location)
        if fault["type"] == "extra_forbidden":
            siblings = _keys_at(kind, location[:-1])
            lines.append(f"{path}: {key}: {no_such('key', str(location[-1]), siblings)}")
        elif fault["type"] == "missing":
            lines.append(f"{path}: {key} is missing")
        else:
            reason = fault["msg"].removeprefix("Value error, ")
            where = f"{key}: " if key else ""
            lines.append(f"{path}: {where}{reason} (got {fault['input']!r:.80})")
    return "\n".join(lines)


def _keys_at(kind: Any, location: tuple[int | str, ...]) -> list[str]:
    """Names of the keys that may stand at a place of the configuration."""
    for part in location:
        models = _models_in(kind)
        fields = {
            field.alias or name: field for m in models for name, field in m.model_fields.items()
        }
        if part in fields:
            kind = fields[str(part)].annotation
        elif len(models) > 1:  # the part is the tag of a union
            kind = next(m for m in models if part in _tags(m))
        else:
            kind = get_args(kind)[-1]  # a mapping: the part is one of its own keys
    return [field.alias or name for m in _models_in(kind) for name, field in m.model_fields.items()]


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    """By which the model is told from others: the values of its field `name`, or its own name."""
    named = model.model_fields.get("name")
    return (model.__name__,) if named is None else get_args(named.annotation)


def _models_in(kind: Any) -> list[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    if get_origin(kind) is dict:
        return []
    return [model for part in get_args(kind) for model in _models_in(part)]


def no_such(what: str, name: str, known: Iterable[str]) -> str:
    """\"no WHAT 'NAME'\" with the nearest known name, or all of them."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    if RENAMED.get(name) in known:
        near = [RENAMED[name]]
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return f"no {what} {name!r}; {hint}"
