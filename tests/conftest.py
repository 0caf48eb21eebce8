"""Fixtures of all tests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import dvc  # noqa: F401  its loggers keep the stderr of their import: not that of one test
import pytest

import heartseg.cluster  # noqa: F401  sets Ray's authentication, before any test imports Ray
from heartseg.config.params import Params, load_params
from heartseg.config.recipe import Recipe
from heartseg.gc_tuning import relax_gc
from tests.examples import ROOT, small_recipe

relax_gc()


@pytest.fixture(scope="session", autouse=True)
def _own_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The tests' own key of case ids, not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEARTSEG_CASE_ID_KEY", str(tmp_path_factory.mktemp("key") / "key"))
        yield


@pytest.fixture
def params() -> Params:
    """The committed params.yaml."""
    return load_params(ROOT / "params.yaml")


@pytest.fixture
def tiny_recipe(params: Params) -> Recipe:
    """A recipe that trains in seconds: a QuickNAT of a few thousand weights on 32 x 32 pixels."""
    return small_recipe(params)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow files first, by their timeouts: a long one that began last would keep a core waiting."""
    longest: dict[Path, float] = defaultdict(float)
    for item in items:
        if item.get_closest_marker("slow"):
            timeout = item.get_closest_marker("timeout")
            seconds = timeout.args[0] if timeout else 1.0
            longest[item.path] = max(longest[item.path], seconds)
    items.sort(key=lambda item: -longest[item.path])
