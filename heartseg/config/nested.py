"""Nested dictionaries, as YAML and JSON files hold them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def leaves(values: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All values of nested dictionaries, each with the keys that lead to it."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from (((key, *rest), leaf) for rest, leaf in leaves(value))
        else:
            yield (key,), value


def get(value: Any, *keys: str) -> Any:
    """A value some levels down; None where a level is missing or null."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def merged(defaults: Any, values: Any) -> Any:
    """`values` over `defaults`, level by level where both are dictionaries."""
    if not isinstance(defaults, dict) or not isinstance(values, dict):
        return values
    return defaults | {key: merged(defaults.get(key), value) for key, value in values.items()}
