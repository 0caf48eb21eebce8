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
