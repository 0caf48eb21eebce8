"""Functions on nested dictionaries, such as the content of YAML and JSON files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def leaves(values: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the path of keys and the value of each leaf of nested dictionaries."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from (((key, *rest), leaf) for rest, leaf in leaves(value))
        else:
            yield (key,), value


def get(value: Any, *keys: str) -> Any:
    """Return the value at a path of keys, or None if a level is missing or null."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def merge(defaults: Any, values: Any) -> Any:
    """Return `defaults` updated with `values`, recursively if both are dictionaries."""
    if not isinstance(defaults, dict) or not isinstance(values, dict):
        return values
    return defaults | {key: merge(defaults.get(key), value) for key, value in values.items()}
