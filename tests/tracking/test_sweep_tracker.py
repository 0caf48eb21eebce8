"""A sweep's runs in a real store are complete and in order after any interruption."""

from __future__ import annotations

import logging
import shutil
import time
from contextlib import suppress
from pathlib import Path

import pytest

from heartseg.tracking import run as run_module
from heartseg.tracking import sweep_tracker as module
from heartseg.tracking.client import connect
from heartseg.tracking.sweep_tracker import Outcome, SweepRun, SweepTracker, trial_name
from heartseg.training.run_dir import read_state, update_state
from tests.tracking.stores import expected, journal_line, new_run, points

pytestmark = pytest.mark.slow

VALUES = {"learning_rate": 0.0003, "batch_size": 12, "input_size": 192}
RECIPE = {"dataset": "camus", "learning_rate": 0.0003, "epochs": 3}


@pytest.fixture
def sweep(store) -> SweepRun:
    tags = {"git.commit": "none", "heartseg.sweep": "camus-sweep-1"}
    return SweepRun(new_run(store), "heartseg-camus", "camus", "prepared.parquet", "0" * 32, tags)


@pytest.fixture
def run_dir(tmp_path) -> Path:
    folder = tmp_path / "trials/007"
    folder.mkdir(parents=True)
    return folder


def append(run_dir: Path, *epochs: int) -> None:
    with open(run_dir / "journal.jsonl", "a", encoding="utf-8") as stream:
        stream.writelines(journal_line(epoch) for epoch in epochs)


def mirrored(store, sweep, run_dir, outcome=None) -> SweepTracker:
    """Return the tracker of a session that has copied one trial and ended."""
    tracker = SweepTracker(store, sweep)
    tracker.begin(7, run_dir, VALUES, RECIPE)
    if outcome is not None:
        tracker.end(7, outcome)
    assert tracker._mirror_all()
    return tracker


def children(store, sweep):
    client = connect(store)
    experiment = client.get_experiment_by_name("heartseg-camus").experiment_id
    found = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{sweep.run_id}'")
    return sorted(found, key=lambda run: run.info.run_name)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (VALUES, "trial 07 lr=0.0003 bs=12 size=192"),
        ({"learning_rate": 0.00123456, "model.squeeze_excite": "none"},
         "trial 07 lr=0.0012 squeeze_excite=none"),
        ({"weight_decay": 1e-05, "class_weights": None, "compile": True},
         "trial 07 wd=1e-05 class_weights=None compile=True"),
        ({}, "trial 07"),
    ],
)  # fmt: skip
def test_names_can_be_read(values, name):
    assert trial_name(7, values) == name


def test_a_trial_is_a_run_in_the_sweeps_run(store, sweep, run_dir, tmp_path):
    append(run_dir, 0, 1)
    with SweepTracker(store, sweep) as tracker:
        tracker.begin(7, run_dir, VALUES, RECIPE)
        append(run_dir, 2)
        tracker.end(7, Outcome("complete", 0.75))
    [run] = children(store, sweep)
    assert run.info.run_name == "trial 07 lr=0.0003 bs=12 size=192"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"learning_rate": "0.0003", "batch_size": "12", "input_size": "192"}
    assert (
        run.data.tags.items()
        >= {
            "mlflow.parentRunId": sweep.run_id,
            "heartseg.trial": "7",
            "heartseg.recipe": "camus-sweep-1/07",
            "heartseg.state": "complete",
            "heartseg.sweep": "camus-sweep-1",
            "git.commit": "none",
        }.items()
    )
    assert run.data.metrics["value"] == 0.75
    assert points(store, run.info.run_id) == expected(range(3))
    assert points(store, run.info.run_id, "train_loss")[2][1] == 1 / 3
    assert points(store, sweep.run_id, "trial_value") == [(7, 0.75, 1_700_000_002_500)]
    [recipe] = (tmp_path / "mlartifacts").rglob(f"{run.info.run_id}/**/recipe.yaml")
    assert "learning_rate: 0.0003" in recipe.read_text()
    assert read_state(run_dir) == {"mlflow_run_id": run.info.run_id, "closed": "complete"}


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Outcome("complete", 0.75), "FINISHED"),
        (Outcome("pruned", 0.25, "asha at epoch 5"), "FINISHED"),
        (Outcome("failed", None, "out of memory: lower batch_size"), "FAILED"),
        (Outcome("cut off", None, "the sweep ended before it"), "KILLED"),
    ],
    ids=lambda one: getattr(one, "state", one),
)
def test_each_end_has_its_status_state_and_reason(store, sweep, run_dir, outcome, status):
    append(run_dir, 0)
    mirrored(store, sweep, run_dir, outcome)
    [run] = children(store, sweep)
    assert run.info.status == status
    assert run.data.tags["heartseg.state"] == outcome.state
    assert run.data.tags["heartseg.reason"] == outcome.reason
    assert run.data.metrics.get("value") == outcome.value
    assert len(points(store, sweep.run_id, "trial_value")) == (outcome.value is not None)


def test_a_trial_that_failed_before_its_first_epoch(store, sweep, run_dir):
    mirrored(store, sweep, run_dir, Outcome("failed", None, "out of memory"))
    [run] = children(store, sweep)
    assert (run.info.status, dict(run.data.metrics)) == ("FAILED", {})


WRITES = ["create_run", "update_run", "log_batch", "log_text", "log_inputs", "set_tag"]


@pytest.mark.slow
def test_a_kill_after_any_write_loses_and_doubles_nothing(store, sweep, tmp_path, monkeypatch):
    """The driver of trial n is killed after its n-th write to the store or the folder."""
    from mlflow import MlflowClient

    outcome = Outcome("pruned", 0.01, "asha at epoch 1")
    for number in range(30):
        run_dir = tmp_path / str(number)
        run_dir.mkdir()
        append(run_dir, 0, 1)
        left = number

        def dying(real):
            def write(*arguments, **named):
                nonlocal left
                if left < 0:
                    raise KeyboardInterrupt  # a dead one does not tidy up
                left -= 1
                answer = real(*arguments, **named)
                if left < 0:
                    raise KeyboardInterrupt
                return answer

            return write

        def session(number=number, run_dir=run_dir):
            tracker = SweepTracker(store, sweep)
            tracker.begin(number, run_dir, VALUES, RECIPE)
            tracker.end(number, outcome)
            assert tracker._mirror_all()

        with monkeypatch.context() as patch:
            for name in (*WRITES, "set_terminated"):
                patch.setattr(MlflowClient, name, dying(getattr(MlflowClient, name)))
            for user in (module, run_module):
                patch.setattr(user, "update_state", dying(user.update_state))
            with suppress(KeyboardInterrupt):
                session()
                break
        session()
    assert 10 <= number < 29
    runs = children(store, sweep)
    assert len(runs) == number + 1
    for run in runs:
        assert points(store, run.info.run_id) == expected(range(2))
        assert run.info.status == "FINISHED"
        assert set(run.data.params) == set(VALUES)
        assert run.data.tags["heartseg.state"] == "pruned"
        assert len(run.inputs.dataset_inputs) == 1
    values = points(store, sweep.run_id, "trial_value")
    assert sorted(step for step, _, _ in values) == list(range(number + 1))


def test_a_cut_off_trial_goes_on_in_its_own_run(store, sweep, run_dir):
    append(run_dir, 0, 1)
    mirrored(store, sweep, run_dir, Outcome("cut off", None, "the sweep ended before it"))
    append(run_dir, 1)  # repeated: its checkpoint was not written yet
    tracker = mirrored(store, sweep, run_dir)
    assert children(store, sweep)[0].info.status == "RUNNING"
    append(run_dir, 2)
    tracker.end(7, Outcome("complete", 0.75))
    tracker._mirror_all()
    [run] = children(store, sweep)
    assert points(store, run.info.run_id) == expected(range(3))
    assert run.info.status == "FINISHED"
    assert run.data.tags["heartseg.reason"] == ""


def test_what_the_store_did_not_take_comes_later_in_order(
    store, sweep, run_dir, tmp_path, monkeypatch, caplog
):
    from mlflow import MlflowClient

    monkeypatch.setattr(module, "POLL_S", 0.02)
    monkeypatch.setattr(module, "CLOSE_S", 0.2)
    caplog.set_level(logging.WARNING)

    def away(*_, **__):
        raise ConnectionError("http://me:secret@host refused")

    other = tmp_path / "trials/008"
    other.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_run", away)
        with SweepTracker(store, sweep) as tracker:
            for number, folder in ((7, run_dir), (8, other)):
                tracker.begin(number, folder, VALUES, RECIPE)
                append(folder, 0, 1)
                tracker.end(number, Outcome("complete", 0.75))
            time.sleep(0.2)
    assert children(store, sweep) == []
    assert caplog.text.count("does not answer") == 1
    assert "secret" not in caplog.text
    with SweepTracker(store, sweep) as tracker:
        for number, folder in ((7, run_dir), (8, other)):
            tracker.begin(number, folder, VALUES, RECIPE)
            tracker.end(number, Outcome("complete", 0.75))
    runs = children(store, sweep)
    assert [run.data.tags["heartseg.trial"] for run in runs] == ["7", "8"]
    for run in runs:
        assert points(store, run.info.run_id) == expected(range(2))
        assert run.info.status == "FINISHED"


def test_a_failing_artifact_store_delays_no_point_and_no_status(
    store, sweep, run_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "CLOSE_S", 0.3)
    places = tmp_path / "mlartifacts"
    shutil.rmtree(places, ignore_errors=True)
    places.write_text("a file where the folder of the artifacts was")
    append(run_dir, 0, 1)
    with SweepTracker(store, sweep) as tracker:
        tracker.begin(7, run_dir, VALUES, RECIPE)
        tracker.end(7, Outcome("complete", 0.75))
    [run] = children(store, sweep)
    assert points(store, run.info.run_id) == expected(range(2))
    assert run.info.status == "FINISHED"
    assert "closed" not in read_state(run_dir)  # the same command sends the recipe
    places.unlink()
    with SweepTracker(store, sweep) as tracker:
        tracker.begin(7, run_dir, VALUES, RECIPE)
        tracker.end(7, Outcome("complete", 0.75))
    assert len(list(places.rglob("recipe.yaml"))) == 1
    assert read_state(run_dir)["closed"] == "complete"


def test_a_run_that_was_deleted_is_made_anew(store, sweep, run_dir):
    append(run_dir, 0)
    mirrored(store, sweep, run_dir, Outcome("cut off"))
    connect(store).delete_run(read_state(run_dir)["mlflow_run_id"])
    update_state(run_dir, closed="cut off")
    mirrored(store, sweep, run_dir, Outcome("complete", 0.75))
    [run] = children(store, sweep)
    assert points(store, run.info.run_id) == expected(range(1))
