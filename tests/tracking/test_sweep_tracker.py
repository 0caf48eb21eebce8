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
from heartseg.tracking.sweep_tracker import SweepRun, SweepTracker
from heartseg.tracking.trial import Trial
from heartseg.training.run_dir import read_state, update_state
from tests.tracking.stores import expected, journal_line, new_run, points

pytestmark = pytest.mark.slow

VALUES = {"learning_rate": 0.0003, "batch_size": 12, "input_size": 192}


@pytest.fixture
def new_trial(params):
    """Makes a trial that is running."""
    recipe = params.recipe("camus").model_copy(update={"learning_rate": 0.0003})

    def make(run_dir: Path, number: int = 7) -> Trial:
        return Trial(number, VALUES, run_dir, recipe)

    return make


def ended(trial: Trial, state: str, value: float | None = None, reason: str = "") -> Trial:
    trial.state, trial.value, trial.reason = state, value, reason
    return trial


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


def mirrored(store, sweep, trial) -> SweepTracker:
    """A session of which nothing but this is left."""
    tracker = SweepTracker(store, sweep)
    tracker.begin(trial)
    if trial.state != "running":
        tracker.end(trial)
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
    assert Trial(7, values, Path("trials/007")).name == name


def test_a_trial_is_a_run_in_the_sweeps_run(store, sweep, run_dir, tmp_path, new_trial):
    append(run_dir, 0, 1)
    with SweepTracker(store, sweep) as tracker:
        trial = new_trial(run_dir)
        tracker.begin(trial)
        append(run_dir, 2)
        tracker.end(ended(trial, "complete", 0.75))
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
        (("complete", 0.75), "FINISHED"),
        (("pruned", 0.25, "asha at epoch 5"), "FINISHED"),
        (("failed", 0.5, "out of memory: lower batch_size"), "FAILED"),
        (("cut off", 0.5, "the sweep ended before it"), "KILLED"),
    ],
    ids=lambda one: one[0] if isinstance(one, tuple) else one,
)
def test_each_end_has_its_status_state_and_reason(
    store, sweep, run_dir, new_trial, outcome, status
):
    """The last value of a trial that did not end well is no result."""
    append(run_dir, 0)
    trial = ended(new_trial(run_dir), *outcome)
    mirrored(store, sweep, trial)
    [run] = children(store, sweep)
    assert run.info.status == status
    assert run.data.tags["heartseg.state"] == trial.state
    assert run.data.tags["heartseg.reason"] == trial.reason
    result = trial.value if status == "FINISHED" else None
    assert run.data.metrics.get("value") == result
    assert len(points(store, sweep.run_id, "trial_value")) == (result is not None)


def test_a_trial_that_failed_before_its_first_epoch(store, sweep, run_dir, new_trial):
    mirrored(store, sweep, ended(new_trial(run_dir), "failed", None, "out of memory"))
    [run] = children(store, sweep)
    assert (run.info.status, dict(run.data.metrics)) == ("FAILED", {})


WRITES = ["create_run", "update_run", "log_batch", "log_text", "log_inputs", "set_tag"]


@pytest.mark.slow
def test_a_kill_after_any_write_loses_and_doubles_nothing(
    store, sweep, tmp_path, monkeypatch, new_trial
):
    """Trial n's driver dies after its n-th write to the store or to the trial's folder."""
    from mlflow import MlflowClient

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
            trial = ended(new_trial(run_dir, number), "pruned", 0.01, "asha at epoch 1")
            tracker.begin(trial)
            tracker.end(trial)
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


def test_a_cut_off_trial_goes_on_in_its_own_run(store, sweep, run_dir, new_trial):
    append(run_dir, 0, 1)
    mirrored(store, sweep, ended(new_trial(run_dir), "cut off", None, "the sweep ended before it"))
    append(run_dir, 1)  # repeated: its checkpoint was not written yet
    trial = new_trial(run_dir)
    tracker = mirrored(store, sweep, trial)
    assert children(store, sweep)[0].info.status == "RUNNING"
    append(run_dir, 2)
    tracker.end(ended(trial, "complete", 0.75))
    tracker._mirror_all()
    [run] = children(store, sweep)
    assert points(store, run.info.run_id) == expected(range(3))
    assert run.info.status == "FINISHED"
    assert run.data.tags["heartseg.reason"] == ""


def test_what_the_store_did_not_take_comes_later_in_order(
    store, sweep, run_dir, tmp_path, monkeypatch, caplog, new_trial
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
                trial = new_trial(folder, number)
                tracker.begin(trial)
                append(folder, 0, 1)
                tracker.end(ended(trial, "complete", 0.75))
            time.sleep(0.2)
    assert children(store, sweep) == []
    assert caplog.text.count("does not answer") == 1
    assert "secret" not in caplog.text
    with SweepTracker(store, sweep) as tracker:
        for number, folder in ((7, run_dir), (8, other)):
            trial = ended(new_trial(folder, number), "complete", 0.75)
            tracker.begin(trial)
            tracker.end(trial)
    runs = children(store, sweep)
    assert [run.data.tags["heartseg.trial"] for run in runs] == ["7", "8"]
    for run in runs:
        assert points(store, run.info.run_id) == expected(range(2))
        assert run.info.status == "FINISHED"


def test_a_failing_artifact_store_delays_no_point_and_no_status(
    store, sweep, run_dir, tmp_path, monkeypatch, new_trial
):
    monkeypatch.setattr(module, "CLOSE_S", 0.3)
    places = tmp_path / "mlartifacts"
    shutil.rmtree(places, ignore_errors=True)
    places.write_text("a file where the folder of the artifacts was")
    append(run_dir, 0, 1)
    with SweepTracker(store, sweep) as tracker:
        trial = ended(new_trial(run_dir), "complete", 0.75)
        tracker.begin(trial)
        tracker.end(trial)
    [run] = children(store, sweep)
    assert points(store, run.info.run_id) == expected(range(2))
    assert run.info.status == "FINISHED"
    assert "closed" not in read_state(run_dir)  # the same command sends the recipe
    places.unlink()
    with SweepTracker(store, sweep) as tracker:
        trial = ended(new_trial(run_dir), "complete", 0.75)
        tracker.begin(trial)
        tracker.end(trial)
    assert len(list(places.rglob("recipe.yaml"))) == 1
    assert read_state(run_dir)["closed"] == "complete"


def test_a_run_that_was_deleted_is_made_anew(store, sweep, run_dir, new_trial):
    append(run_dir, 0)
    mirrored(store, sweep, ended(new_trial(run_dir), "cut off"))
    connect(store).delete_run(read_state(run_dir)["mlflow_run_id"])
    update_state(run_dir, closed="cut off")
    mirrored(store, sweep, ended(new_trial(run_dir), "complete", 0.75))
    [run] = children(store, sweep)
    assert points(store, run.info.run_id) == expected(range(1))
