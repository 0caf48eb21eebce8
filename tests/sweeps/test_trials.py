"""The decisions of a sweep on the journals that its trials write."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest

from heartseg.config.recipe import Recipe
from heartseg.data.privacy import CaseNames
from heartseg.sweeps import trials as module
from heartseg.sweeps.folder import trial_dir
from heartseg.sweeps.trials import SweepTrials
from heartseg.training.run_dir import read_state, update_state
from tests.sweeps.small import ASHA, write_epochs

pytestmark = pytest.mark.slow

EPOCHS = 18  # of the CAMUS recipe


class Tracker:
    """Records the calls."""

    def __init__(self) -> None:
        self.begun: dict[int, Recipe] = {}
        self.ends: list[tuple] = []

    def begin(self, trial) -> None:
        self.begun[trial.number] = trial.recipe

    def end(self, trial) -> None:
        self.ends.append((trial.number, trial.state, trial.result, trial.reason))


NAMES = CaseNames("hashed", b"k" * 32, {"mueller": "id-1"})


@pytest.fixture
def open_trials(params, tmp_path, open_search):
    """Function that opens a sweep. A second call opens it as the session after a kill would."""

    def open_it(**changes) -> SweepTrials:
        search = open_search(**changes)
        if not read_state(tmp_path / "sweep"):
            update_state(tmp_path / "sweep", seconds=0.0)
        return SweepTrials(search.sweep, params, search, Tracker(), tmp_path / "sweep", NAMES)

    return open_it


def epochs(trials: SweepTrials, number: int, values: Iterable[float], first: int = 1) -> bool:
    """Write epochs and report each, and return whether the last one stops the trial."""
    stop = False
    for epoch, value in enumerate(values, start=first):
        assert not stop
        write_epochs(trials.by_number[number].run_dir, value, first=epoch)
        stop = trials.epoch_done(number)
    return stop


def states(trials: SweepTrials) -> dict[int, str]:
    return {trial.number: trial.state.name for trial in trials.search.trials()}


def test_a_trial_that_runs_to_its_end_is_complete(open_trials, tmp_path):
    trials = open_trials()
    plan = trials.next()
    assert (plan.number, plan.run_dir) == (0, tmp_path / "sweep/trials/000")
    assert plan.recipe == trials.params.recipe("camus")  # the values of the recipe come first
    assert not epochs(trials, 0, [n / 20 for n in range(1, EPOCHS + 1)])
    trials.ended(0, None)
    assert trials.tracker.begun == {0: plan.recipe}
    assert trials.tracker.ends == [(0, "complete", 0.9, "")]
    [found] = trials.search.trials()
    assert (found.value, found.last_step) == (0.9, EPOCHS)


def test_only_the_best_trial_keeps_a_checkpoint(open_trials):
    """Trials that have not ended keep theirs, too."""
    trials = open_trials()
    for number, value in enumerate([0.5, 0.7, 0.6, None, 0.4]):
        folder = trials.next().run_dir / "checkpoints"
        folder.mkdir(parents=True)
        for name in ("0001-000000.aa.pt", "0002-000000.bb.pt"):
            (folder / name).touch()
        if value is not None:
            write_epochs(folder.parent, *[value] * EPOCHS)
            trials.epoch_done(number)
        if number < 4:
            trials.ended(number, None if value else "out of memory")
    left = [len(list((one.run_dir / "checkpoints").iterdir())) for one in trials.by_number.values()]
    assert left == [0, 2, 0, 0, 2]
    trials.clear_checkpoints()
    left = [len(list((one.run_dir / "checkpoints").iterdir())) for one in trials.by_number.values()]
    assert left == [0, 1, 0, 0, 2]


def test_the_selected_epoch_counts(open_trials, params):
    """`select: best` keeps the epoch of the best Dice, whatever the sweep's metric is."""
    space = {"select": {"choice": ["last", "best"]}, "batch_size": {"choice": [12]}}
    trials = open_trials(
        space=space, initial_points=[{"select": "best"}], metric="val_loss", mode="min"
    )
    for _ in range(2):
        number = trials.next().number
        for epoch, (dice, loss) in enumerate([(0.5, 0.3), (0.75, 0.4), (0.75, 0.2), (0.6, 0.1)]):
            write_epochs(trial_dir(trials.folder, number), dice, first=epoch + 1, val_loss=loss)
        trials.epoch_done(number)
        trials.ended(number, None)
    assert [end[:3] for end in trials.tracker.ends] == [
        (0, "complete", 0.1),
        (1, "complete", 0.4),
    ]


def test_a_pruned_trial(open_trials):
    trials = open_trials(pruner=ASHA, trials=2)
    trials.next()
    assert not epochs(trials, 0, [0.5] * EPOCHS)
    trials.ended(0, None)
    trials.next()
    assert epochs(trials, 1, [0.4, 0.3])
    trials.ended(1, None)
    assert trials.tracker.ends[1] == (1, "pruned", 0.3, "asha at epoch 2")
    assert states(trials) == {0: "COMPLETE", 1: "PRUNED"}
    assert trials.next() is None


@pytest.mark.parametrize("fault", [None, "RayActorError: the process died"])
def test_epochs_and_faults_after_the_pruning_are_ignored(open_trials, fault):
    """Several workers do not stop at once, and their processes may die when they are stopped."""
    trials = open_trials(pruner=ASHA)
    trials.next(), trials.next()
    epochs(trials, 0, [0.5, 0.5])
    write_epochs(trials.by_number[1].run_dir, 0.4, 0.3, 0.9)  # one epoch ahead of the driver
    assert trials.epoch_done(1)
    assert trials.epoch_done(1)
    trials.ended(1, fault)
    assert trials.tracker.ends == [(1, "pruned", 0.3, "asha at epoch 2")]
    assert trials.search.trials()[1].intermediate_values == {1: 0.4, 2: 0.3}


def test_a_fault_ends_the_trial_and_not_the_sweep(open_trials):
    trials = open_trials(trials=2)
    trials.next()
    epochs(trials, 0, [0.5])
    trials.ended(0, "out of memory: lower batch_size")
    assert trials.tracker.ends == [(0, "failed", None, "out of memory: lower batch_size")]
    assert trials.search.reasons() == ["out of memory: lower batch_size"]
    assert trials.next().number == 1
    assert not trials.should_stop()


def test_a_trial_with_a_nan_value_fails(open_trials):
    trials = open_trials(metric="ef_mae", mode="min")
    trials.next()
    write_epochs(trials.by_number[0].run_dir, *[0.5] * EPOCHS, ef_mae=math.nan)
    trials.epoch_done(0)
    trials.ended(0, None)
    assert trials.tracker.ends == [(0, "failed", None, "ef_mae is nan")]
    assert states(trials) == {0: "FAIL"}


def test_an_invalid_combination_of_values_fails_before_it_runs(open_trials, monkeypatch):
    trials = open_trials()
    real = type(trials.sweep).recipe_for

    def picky(self, values, params):
        if values["batch_size"] == 12:
            raise module.InputError("batch_size 12 does not go with the rest")
        return real(self, values, params)

    monkeypatch.setattr(type(trials.sweep), "recipe_for", picky)
    assert trials.next().number > 0
    assert trials.tracker.ends[0] == (0, "failed", None, "batch_size 12 does not go with the rest")


def test_epochs_that_a_killed_driver_missed_are_reported(open_trials):
    trials = open_trials(pruner=ASHA)
    trials.next(), trials.next()
    epochs(trials, 0, [0.5, 0.5, 0.5])
    epochs(trials, 1, [0.6])
    write_epochs(trials.by_number[0].run_dir, 0.55, first=4)
    again = open_trials(pruner=ASHA)
    plans = [again.next(), again.next()]
    assert [plan.number for plan in plans] == [0, 1]
    assert [again.by_number[n].epoch for n in (0, 1)] == [4, 1]
    assert again.search.trials()[0].intermediate_values == {1: 0.5, 2: 0.5, 3: 0.5, 4: 0.55}
    write_epochs(again.by_number[0].run_dir, 0.55, first=4)  # its checkpoint was not written yet
    assert not again.epoch_done(0)
    assert not epochs(again, 0, [0.6], first=5)
    assert list(again.search.trials()[0].intermediate_values) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("moment", ["epoch written", "epoch reported", "pruned"])
def test_a_kill_near_a_rung_does_not_prevent_the_pruning(open_trials, moment):
    changes = {"pruner": ASHA, "trials": 3}
    trials = open_trials(**changes)
    trials.next(), trials.next()
    epochs(trials, 0, [0.5, 0.5])
    epochs(trials, 1, [0.9])
    write_epochs(trials.by_number[1].run_dir, 0.3, first=2)
    if moment == "epoch reported":
        trials.search.report(1, 2, 0.3)
    elif moment != "epoch written":
        assert trials.epoch_done(1)
    again = open_trials(**changes)
    assert [again.next().number for _ in range(2)] == [0, 2]
    assert again.next() is None
    assert states(again) == {0: "RUNNING", 1: "PRUNED", 2: "RUNNING"}
    assert again.tracker.ends == [(1, "pruned", 0.3, "asha at epoch 2")]


def test_the_hours_count_over_all_sessions(open_trials, monkeypatch):
    now = iter(range(0, 100_000, 1000))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(now))
    trials = open_trials(hours=1, trials=None)  # 0 s
    trials.next()
    epochs(trials, 0, [0.5])  # saved at 1000 s
    assert not trials.should_stop()  # 2000 s, which a killed session does not save
    again = open_trials(hours=1, trials=None)  # 3000 s on the clock, 1000 s spent
    assert again.seconds() == 2000
    assert not again.should_stop()  # 3000 s
    assert again.should_stop()  # 4000 s
    more = open_trials(hours=None)
    assert not more.out_of_time()
    more.interrupted.set()
    assert more.should_stop()


def test_runs_of_earlier_sessions_are_closed_once(open_trials):
    """The driver was killed between the writes to Optuna and to MLflow."""
    changes = {"pruner": ASHA, "trials": 4}
    trials = open_trials(**changes)
    for _ in range(4):
        trials.next()
    epochs(trials, 0, [0.5] * EPOCHS)
    trials.ended(0, None)
    epochs(trials, 1, [0.4, 0.3])
    trials.ended(1, None)
    epochs(trials, 2, [0.9])
    trials.ended(2, "out of memory")
    epochs(trials, 3, [0.9, 0.9])
    trials.cut_off()
    assert trials.tracker.ends[3][:3] == (3, "cut off", None)
    update_state(trials.by_number[0].run_dir, closed="complete")
    update_state(trials.by_number[1].run_dir, closed="cut off")  # in an earlier session
    again = open_trials(**changes)
    assert again.tracker.ends == [
        (1, "pruned", 0.3, "asha at epoch 2"),
        (2, "failed", None, "out of memory"),
    ]
    for number, recipe in again.tracker.begun.items():
        values = again.search.trials()[number].params
        assert recipe.learning_rate == values["learning_rate"]
    assert {n: (one.state, one.epoch, one.value) for n, one in again.by_number.items()} == {
        0: ("complete", EPOCHS, 0.5),
        1: ("pruned", 2, 0.3),
        2: ("failed", 1, None),
    }
    assert again.next().number == 3


def test_the_reason_of_a_failure_contains_no_patient(open_trials):
    """The error of a library may contain the name of a file."""
    trials = open_trials()
    plan = trials.next()
    trials.ended(plan.number, "OSError: /data/mueller/mueller_2CH_ED.nii is bad")
    reason = "OSError: /data/id-1/id-1_2CH_ED.nii is bad"
    assert trials.tracker.ends == [(plan.number, "failed", None, reason)]
    assert trials.search.reasons() == [reason]
    assert trials.by_number[plan.number].reason == reason
