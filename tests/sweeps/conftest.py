"""Fixtures of the sweep tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from heartseg.config.params import Params
from heartseg.sweeps.study import STUDY, Search
from tests.sweeps.small import small_sweep
from tests.tracking.stores import _cold_store, _own_environment, store

__all__ = ["_cold_store", "_own_environment", "store"]


@pytest.fixture(scope="session")
def _cold_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that is created once, because Optuna takes a second to create its tables."""
    path = tmp_path_factory.mktemp("study") / STUDY
    optuna.storages.RDBStorage(f"sqlite:///{path}")
    return path


@pytest.fixture
def open_search(
    params: Params, tmp_path: Path, _cold_study: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Search]:
    """Function that opens a search. A second call opens it as the next session would."""
    # The check of the tables' version takes longer than everything else.
    check = "_VersionManager.check_table_schema_compatibility"
    monkeypatch.setattr(f"optuna.storages._rdb.storage.{check}", lambda _: None)

    def open_it(folder: str = "sweep", **changes: object) -> Search:
        place = tmp_path / folder
        if not place.exists():
            place.mkdir(parents=True)
            shutil.copy(_cold_study, place / STUDY)
        return Search(small_sweep(params, tmp_path, **changes), params, place, "small-sweep-1")

    return open_it
