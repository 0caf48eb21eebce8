from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from subprocess import PIPE
from typing import Any

import pytest
from sqlalchemy import Engine, event

from heartseg.errors import InputError
from heartseg.tracking import pulled, registry
from heartseg.tracking.client import connect
from tests.tracking.stores import new_run

pytestmark = pytest.mark.slow

NAME = "heartseg-camus"


def tags(value: float, **changes: str) -> dict[str, str]:
    return {
        registry.METRIC_TAG: "overall.mean.dice",
        registry.VALUE_TAG: repr(value),
        registry.DATA_TAG: "1" * 32,
        registry.SPLIT_TAG: "test",
        registry.WEIGHTS_TAG: "w",
        registry.TRAINING_TAG: "t",
        registry.POSTPROCESS_TAG: "none",
        registry.TTA_TAG: "none",
        registry.FORMAT_TAG: registry.FORMAT,
    } | changes


def register(uri: str, tags: dict[str, str]) -> str:
    """Register a version whose model has no files, which `promote` does not read."""
    client = registry.use_store(uri)
    run_id = new_run(uri)
    experiment = client.get_run(run_id).info.experiment_id
    model = client.create_logged_model(experiment, name="unet", source_run_id=run_id)
    return registry.register_version(client, NAME, run_id, f"models:/{model.model_id}", tags)


def promote(uri: str, version: str, mode: str = "max") -> registry.Promotion:
    return registry.promote(connect(uri), NAME, version, mode)


def aliases(uri: str) -> dict[str, str]:
    found = connect(uri).get_registered_model(NAME).aliases
    return {alias: str(version) for alias, version in found.items()}


def test_a_version_belongs_to_its_run_and_model(store):
    version = register(store, tags(0.8))

    found = connect(store).get_model_version(NAME, version)
    assert connect(store).get_run(found.run_id).info.run_name == "camus-1"
    assert found.tags == tags(0.8)
    assert found.source.startswith("models:/m-")


def test_the_first_version_is_champion(store):
    assert promote(store, register(store, tags(0.1))).alias == "champion"
    assert aliases(store) == {"champion": "1"}


@pytest.mark.parametrize(
    ("mode", "value", "alias"),
    [
        ("max", 0.81, "champion"),
        ("max", 0.80, "challenger"),
        ("max", 0.79, "challenger"),
        ("max", float("nan"), "challenger"),
        ("min", 0.79, "champion"),
        ("min", 0.80, "challenger"),
        ("min", 0.81, "challenger"),
        ("min", float("-inf"), "challenger"),
    ],
)
def test_the_champion_moves_only_to_a_strictly_better_version(store, mode, value, alias):
    promote(store, register(store, tags(0.80)), mode)

    second = register(store, tags(value))

    assert promote(store, second, mode).alias == alias
    assert aliases(store)[alias] == second
    assert aliases(store)["champion"] == (second if alias == "champion" else "1")


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        (registry.DATA_TAG, "2" * 32),
        (registry.SPLIT_TAG, "val"),
        (registry.METRIC_TAG, "overall.LV.dice"),
    ],
)
def test_versions_judged_differently_are_not_compared(store, tag, value):
    promote(store, register(store, tags(0.5)))

    decision = promote(store, register(store, tags(0.9, **{tag: value})))

    assert decision.alias == "challenger"
    assert tag in decision.reason
    assert "again" in decision.reason
    assert "by hand" in decision.reason
    assert aliases(store) == {"champion": "1", "challenger": "2"}


def test_a_sweeps_winner_judged_by_what_it_was_selected_on_beats_nobody(store):
    promote(store, register(store, tags(0.5)))
    decision = promote(store, register(store, tags(0.9, **{registry.SWEPT_TAG: "true"})))
    assert decision.alias == "challenger"
    assert "Give the dataset a test split" in decision.reason
    assert aliases(store) == {"champion": "1", "challenger": "2"}


def test_a_champion_made_by_hand_without_evaluation_stays(store):
    client = connect(store)
    register(store, {})
    client.set_registered_model_alias(NAME, "champion", "1")

    assert promote(store, register(store, tags(0.9))).alias == "challenger"


def test_a_deleted_champion_makes_room(store):
    promote(store, register(store, tags(0.9)))
    connect(store).delete_model_version(NAME, "1")

    assert promote(store, register(store, tags(0.5))).alias == "champion"


def test_asking_again_changes_nothing(store):
    first, second = register(store, tags(0.5)), register(store, tags(0.4))
    decisions = [(promote(store, first), promote(store, second)) for _ in range(2)]

    assert decisions[0] == decisions[1]
    assert [decision.alias for decision in decisions[0]] == ["champion", "challenger"]
    assert aliases(store) == {"champion": "1", "challenger": "2"}


def test_a_challenger_that_wins_later_is_challenger_no_more(store):
    promote(store, register(store, tags(0.5)))
    second = register(store, tags(0.9, **{registry.DATA_TAG: "2" * 32}))
    promote(store, second)
    connect(store).set_model_version_tag(NAME, second, registry.DATA_TAG, "1" * 32)

    assert promote(store, second).alias == "champion"
    assert aliases(store) == {"champion": "2"}


class Paused:
    """Return a client whose first call to set the champion waits before or after the call."""

    def __init__(self, uri: str, after: bool):
        self.client, self.after = connect(uri), after
        self.reached, self.go_on = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        if alias == "champion" and not self.reached.is_set():
            if self.after:
                self.client.set_registered_model_alias(name, alias, version)
            self.reached.set()
            assert self.go_on.wait(60)
            if self.after:
                return
        self.client.set_registered_model_alias(name, alias, version)


@pytest.mark.parametrize("former", [0.5, None], ids=["with a champion", "without"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("slow", "quick"), [(0.7, 0.8), (0.8, 0.7), (0.8, 0.8)])
def test_of_two_registrations_at_once_the_better_one_stays_champion(
    store, former, after, slow, quick
):
    """The first is paused before or after it sets the alias, and the second runs meanwhile."""
    if former is not None:
        promote(store, register(store, tags(former)))
    first, second = register(store, tags(slow)), register(store, tags(quick))
    paused = Paused(store, after)
    with ThreadPoolExecutor(1) as pool:
        one = pool.submit(registry.promote, paused, NAME, first, "max")
        assert paused.reached.wait(60)
        other = promote(store, second)
        paused.go_on.set()
        decided = {first: one.result(60), second: other}

    champion = aliases(store)["champion"]
    best = {0.7: second, 0.8: first}[slow] if slow != quick else champion
    assert champion == best
    if after and slow > quick:
        assert decided[second].alias == "challenger"
    again = {version: promote(store, version).alias for version in (first, second)}
    assert again[champion] == "champion"
    assert set(again.values()) == {"champion", "challenger"}


def test_a_person_who_takes_the_champion_back_is_not_overruled(store):
    """The next version is compared with version 1, which was made champion by hand."""
    for value in (0.5, 0.9):
        promote(store, register(store, tags(value)))
    connect(store).set_registered_model_alias(NAME, "champion", "1")
    third = register(store, tags(0.7))
    assert promote(store, third).alias == "champion"
    assert aliases(store)["champion"] == third


@pytest.mark.slow
def test_two_processes_that_register_at_once(store):
    values = (0.6, 0.9, 0.7, 0.8)
    versions = [register(store, tags(value)) for value in values]
    code = (
        "import sys; from heartseg.tracking.client import connect;"
        "from heartseg.tracking.registry import promote; client = connect(sys.argv[1]);"
        "print(flush=True); input(); promote(client, 'heartseg-camus', sys.argv[2], 'max')"
    )
    command = [sys.executable, "-c", code, store]
    processes = [
        subprocess.Popen([*command, version], stdin=PIPE, stdout=PIPE, text=True)
        for version in versions
    ]
    for process in processes:
        process.stdout.readline()  # ready
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.wait(120) for process in processes] == [0] * len(values)
    assert aliases(store)["champion"] == versions[1]


def test_an_alias_that_another_process_sets_between_look_and_insert(store):
    """MLflow selects and then inserts, so the database refuses the second of two inserts."""
    other, version = register(store, tags(0.6)), register(store, tags(0.9))
    path = store.removeprefix("sqlite:///")
    intrusions: list[str] = []

    def intrude(connection, cursor, statement, parameters, context, many):
        if statement.startswith("INSERT INTO registered_model_aliases") and not intrusions:
            intrusions.append(statement)
            with closing(sqlite3.connect(path)) as outside, outside:
                outside.execute(statement, (*parameters[:-1], int(other)))

    event.listen(Engine, "before_cursor_execute", intrude)
    try:
        assert promote(store, version).alias == "champion"
    finally:
        event.remove(Engine, "before_cursor_execute", intrude)

    assert intrusions
    assert aliases(store)["champion"] == version


def test_a_version_is_found_by_what_its_package_is_made_of(store):
    client = connect(store)
    version = register(store, tags(0.5))

    assert registry.find_version(client, NAME, tags(0.9)).version == int(version)
    for tag in registry.PACKAGE_TAGS:
        assert registry.find_version(client, NAME, tags(0.5, **{tag: "other"})) is None
    assert registry.find_version(client, "heartseg-mmode", tags(0.5)) is None


def test_pulling_what_is_not_there_names_what_is(store):
    register(store, tags(0.5))

    with pytest.raises(InputError, match=r"heartseg-camos@champion.*Registered there: heartseg-c"):
        pulled.pull(store, "models:/heartseg-camos@champion")
