"""Fixtures of all tests."""

from __future__ import annotations

import pytest

from heartseg.config import Params, load_params
from heartseg.recipe import Recipe
from tests.examples import ROOT, small_recipe


@pytest.fixture
def params() -> Params:
    """The committed params.yaml."""
    return load_params(ROOT / "params.yaml")


@pytest.fixture
def tiny_recipe(params: Params) -> Recipe:
    """A recipe that trains in seconds: a QuickNAT of a few thousand weights on 32 x 32 pixels."""
    return small_recipe(params)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow files first: one that began last would keep a core waiting."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
