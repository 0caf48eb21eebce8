"""Read, validate and change YAML files, with error messages that name file, key and remedy."""

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
"""Present names of keys from earlier versions."""
MAX_VALUES = 100_000
"""Maximum number of values in a file. Without a limit, a few lines of nested aliases could expand
to any number of values ("billion laughs")."""


def read_yaml_as(kind: type[Model], path: Path) -> Model:
    """Read a YAML file and validate it with a pydantic model.

    Raises:
        InputError: The file is missing, is not valid YAML, or contains an unknown key or an invalid
            value. The message contains all of them, and the nearest valid name for each key.
    """
    content = _read_yaml(path)
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise InputError(_explain(error, kind, path)) from None


def change_yaml(path: Path, changes: Mapping[tuple[str, ...], Any]) -> None:
    """Set values in a YAML file and keep its comments and order. The file is replaced atomically.

    Args:
        path: Existing file.
        changes: New values by path of keys. Missing sections are added.
    """
    yaml_file = YAML()  # ruamel.yaml, because PyYAML loses comments
    yaml_file.preserve_quotes = True
    yaml_file.width = 4096
    # By default ruamel.yaml writes null as an empty value.
    yaml_file.representer.add_representer(type(None), _represent_null)
    content = yaml_file.load(path.read_text(encoding="utf-8"))
    for keys, value in changes.items():
        section = content
        for key in keys[:-1]:
            if key not in section:
                _add(section, key, CommentedMap())
            section = section[key]
        if keys[-1] in section:
            section[keys[-1]] = value
        else:
            _add(section, keys[-1], value)
    write_atomically(lambda temporary: yaml_file.dump(content, temporary), path)


def _add(section: Any, key: str, value: Any) -> None:
    """Add a key to a section.

    In a section of several lines, add it before the last key, because ruamel.yaml attaches the
    comments below the section to that key.
    """
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
        if _count_values(tree, {}) > MAX_VALUES:
            raise InputError(f"{path} has more than {MAX_VALUES} values; remove aliases (*name)")
        return None if tree is None else loader.construct_document(tree)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; run from the root of the repository") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except RecursionError:
        raise InputError(f"{path} is not valid YAML: too many levels") from None
    except Exception as error:  # PyYAML raises various exceptions on dates, numbers and tags
        raise InputError(f"{path} is not valid YAML: {error}") from None


def _count_values(node: yaml.Node | None, known: dict[int, float]) -> float:
    """Return the number of values in a tree after expansion of its aliases.

    Args:
        node: Root of the tree.
        known: Counts of nodes that have been visited, by id.

    Returns:
        The number of values; infinity if a node contains itself.
    """
    if node is None:
        return 0
    if id(node) not in known:
        known[id(node)] = math.inf  # a node that contains itself finds this value
        parts: list[Any] = [] if isinstance(node, yaml.ScalarNode) else node.value
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in parts for part in pair]
        known[id(node)] = 1 + sum(_count_values(part, known) for part in parts)
    return known[id(node)]


def _explain(error: ValidationError, kind: type[BaseModel], path: Path) -> str:
    """Return a line for each error with file, key, reason and the rejected value."""
    lines = []
    for fault in error.errors():
        location = fault["loc"]
        key = ".".join(str(part) for part in location)
        if fault["type"] == "extra_forbidden":
            siblings = _keys_at(kind, location[:-1])
            lines.append(f"{path}: {key}: {unknown_name('key', str(location[-1]), siblings)}")
        elif fault["type"] == "missing":
            lines.append(f"{path}: {key} is missing")
        else:
            reason = fault["msg"].removeprefix("Value error, ")
            where = f"{key}: " if key else ""
            lines.append(f"{path}: {where}{reason} (got {fault['input']!r:.80})")
    return "\n".join(lines)


def _keys_at(kind: Any, location: tuple[int | str, ...]) -> list[str]:
    """Return the valid keys of the section at a location of the configuration."""
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
            kind = get_args(kind)[-1]  # the part is a key of a mapping
    return [field.alias or name for m in _models_in(kind) for name, field in m.model_fields.items()]


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    """Return the tags of a model in a union: the values of its field `name`, or its class name."""
    named = model.model_fields.get("name")
    return (model.__name__,) if named is None else get_args(named.annotation)


def _models_in(kind: Any) -> list[type[BaseModel]]:
    """Return the models of which a type consists, without those inside mappings."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    if get_origin(kind) is dict:
        return []
    return [model for part in get_args(kind) for model in _models_in(part)]


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """Return an error message about an unknown name that suggests the nearest known one.

    Args:
        what: What the name stands for, such as "recipe".
        name: The unknown name.
        known: All known names.
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    if RENAMED.get(name) in known:
        near = [RENAMED[name]]
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return f"no {what} {name!r}; {hint}"
