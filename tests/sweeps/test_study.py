"""The search: its trials, and that it continues after a kill as if nothing had happened."""

from __future__ import annotations

import math

import pytest
from optuna.trial import TrialState

from tests.sweeps.small import ASHA, TPE

MEDIAN = {"name": "median", "startup_trials": 1, "min_epochs": 2}
EPOCHS = 5


def test_the_recipe_comes_first_and_then_the_given_points(open_search):
    changes = {"initial_points": [{"batch_size": 8}, {"learning_rate": 0.01}], "trials": 4}
    search = open_search(**changes)
    given = [search.next() for _ in range(4)]
    assert [one.number for one in given] == [0, 1, 2, 3]
    assert [one.values for one in given[:3]] == [
        {"learning_rate": 0.003, "batch_size": 12},
        {"learning_rate": 0.003, "batch_size": 8},
        {"learning_rate": 0.01, "batch_size": 12},
    ]
    assert search.next() is None
    assert not search.anything_left()


def test_an_interrupted_trial_is_returned_again(open_search):
    changes = {"trials": 5, "sampler": TPE | {"startup_trials": 1}}
    search = open_search(**changes)
    given = [search.next() for _ in range(4)]
    search.complete(0, 0.5)
    search.report(1, 1, 0.25)
    search.report(1, 2, 0.5)
    search.fail(2, "out of memory")
    for _ in range(2):  # killed twice, the second time before anything happened
        search = open_search(**changes)
    again = [search.next(), search.next()]
    assert [(one.number, one.values) for one in again] == [
        (one.number, one.values) for one in (given[1], given[3])
    ]
    assert [one.epoch for one in again] == [2, 0]
    assert search.next().number == 4
    assert search.next() is None
    search.report(1, 2, 0.75)  # reported a second time
    search.report(1, 3, 0.6)
    trials = search.trials()
    assert [trial.state.name for trial in trials] == [
        "COMPLETE", "RUNNING", "FAIL", "RUNNING", "RUNNING"
    ]  # fmt: skip
    assert trials[1].intermediate_values == {1: 0.25, 2: 0.5, 3: 0.6}
    assert search.reasons() == ["out of memory"]
    assert search.best().number == 0


def test_a_trial_that_was_interrupted_while_sampling_is_completed(open_search, monkeypatch):
    search = open_search(trials=2)
    monkeypatch.setattr("heartseg.sweeps.study._suggest", _killed)
    with pytest.raises(SystemExit):
        search.next()
    monkeypatch.undo()
    search = open_search(trials=2)
    own = {"learning_rate": 0.003, "batch_size": 12}
    assert (search.next().values, search.next().number) == (own, 1)
    assert search.next() is None


def _killed(*_):
    raise SystemExit


def curve(number: int, epoch: int) -> float:
    """A scripted Dice. The ranking of the trials changes from epoch to epoch."""
    return 0.5 + 0.4 * math.sin(2.3 * number) * (1 - math.exp(-epoch / 3)) + 0.01 * (epoch % 3)


def run(search, reopen=None):
    """Run two trials at a time, one epoch each in turn, with a kill after every fifth report."""
    running, reports = {}, 0
    while True:
        while len(running) < 2 and (one := search.next()) is not None:
            running[one.number] = 0
        if not running:
            return {t.number: (t.state.name, t.last_step, t.value) for t in search.trials()}
        number = min(running, key=lambda n: (running[n], n))
        epoch = running[number] = running[number] + 1
        search.report(number, epoch, curve(number, epoch))
        reports += 1
        if reopen is not None and reports % 5 == 0:
            search = reopen()
            again = [search.next() for _ in running]
            assert {one.number: one.epoch for one in again} == running
        if epoch == EPOCHS:
            search.complete(number, curve(number, epoch))
        elif search.should_prune(number):
            search.prune(number)
        else:
            continue
        del running[number]


@pytest.mark.slow
@pytest.mark.parametrize("pruner", [ASHA, MEDIAN], ids=lambda one: one["name"])
def test_pruning_is_the_same_after_kills(open_search, pruner):
    changes = {"pruner": pruner, "trials": 6, "sampler": {"name": "random"}}
    whole = run(open_search("whole", **changes))
    assert {state for state, _, _ in whole.values()} == {"COMPLETE", "PRUNED"}
    if pruner is ASHA:
        assert {last for _, last, _ in whole.values()} <= {2, 4, EPOCHS}  # the rungs
    killed = run(open_search("killed", **changes), lambda: open_search("killed", **changes))
    assert killed == whole


def test_asha_keeps_the_best_of_each_rung(open_search):
    """By hand: of 0.4, 0.3, 0.2 and 0.1, only the first is in the best half so far."""
    search = open_search(pruner=ASHA, trials=4)
    stopped = []
    for value in (0.4, 0.3, 0.2, 0.1):
        number = search.next().number
        search.report(number, 1, 0.9)
        assert not search.should_prune(number)  # before the rung
        search.report(number, 2, value)
        stopped.append(search.should_prune(number))
    assert stopped == [False, True, True, True]


@pytest.mark.parametrize("pruner", [ASHA, MEDIAN], ids=lambda one: one["name"])
def test_min_epochs_is_the_first_epoch_that_can_be_pruned(open_search, pruner):
    search = open_search(pruner=pruner | {"min_epochs": 3}, trials=3)
    last = {}
    for value in (0.5, 0.5, 0.1):
        number = search.next().number
        for epoch in range(1, EPOCHS + 1):
            search.report(number, epoch, value)
            last[number] = epoch
            if search.should_prune(number):
                search.prune(number)
                break
        else:
            search.complete(number, value)
    assert last[2] == 3


def test_fields_that_do_not_apply_are_not_sampled(open_search):
    space = {
        "optimizer": {"choice": ["adamw", "sgd"]},
        "momentum": {"uniform": [0.5, 0.99], "when": {"optimizer": ["sgd"]}},
    }
    search = open_search(space=space, trials=12)
    for _ in range(12):
        one = search.next()
        assert ("momentum" in one.values) == (one.values["optimizer"] == "sgd")
        search.complete(one.number, 0.5)
    assert {len(trial.params) for trial in search.trials()} == {1, 2}


@pytest.mark.parametrize("trials", [None, 4])
def test_a_grid_ends(open_search, trials):
    space = {
        "batch_size": {"choice": [8, 12, 16]},
        "input_size": {"integers": [128, 160], "step": 32},
    }
    changes = {"space": space, "sampler": {"name": "grid"}, "trials": trials, "hours": 1}
    search, points = open_search(**changes), []
    while search.anything_left():
        one = search.next()
        points.append(tuple(one.values.values()))
        search.complete(one.number, 0.5)
        if len(points) == 3:
            search = open_search(**changes)
    assert points[0] == (12, 128)
    assert len(points) == len(set(points)) == (trials or 6)
    assert search.next() is None


@pytest.mark.parametrize("name", ["tpe", "cmaes", "random"])
def test_samplers_stay_in_the_space_and_repeat_nothing_after_a_kill(open_search, name):
    sampler = {"tpe": TPE, "cmaes": {"name": name, "startup_trials": 2}, "random": {"name": name}}
    changes = {"sampler": sampler[name], "trials": 8}
    seen = []
    for _ in range(2):
        search = open_search(**changes)
        for one in [search.next() for _ in range(4)]:
            seen.append(one.values["learning_rate"])
            assert 0.001 <= seen[-1] <= 0.01
            assert one.values["batch_size"] in (8, 12, 16)
            search.complete(one.number, 0.5)
    assert len(set(seen)) == 8
    assert len(search.trials(TrialState.COMPLETE)) == 8


def test_a_search_can_be_extended_and_its_best_trial_follows_the_mode(open_search):
    first = open_search(trials=2)
    for value in (0.5, 0.25):
        first.complete(first.next().number, value)
    assert not first.anything_left()
    assert first.best().value == 0.5
    assert open_search(trials=3).next().number == 2
    falling = open_search("falling", metric="val_loss", mode="min")
    for value in (0.5, 0.25):
        falling.complete(falling.next().number, value)
    assert falling.best().value == 0.25
