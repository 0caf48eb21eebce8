"""Trials on Ray: parallel, failing and stopped trials, and the resources they leave."""

from __future__ import annotations

import math
import os
import threading
import time
from pathlib import Path

import pytest

from heartseg.config.recipe import Recipe
from heartseg.config.sweep_file import Resources
from heartseg.errors import InputError
from heartseg.tracking.trial import Trial
from heartseg.training.journal import read_epochs
from tests.cluster.test_storage import disk, fill
from tests.examples import small_recipe, write_disks
from tests.processes import children_running

__all__ = ["disk"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EPOCHS = 3


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("disks")
    write_disks(place, train=24, val=5)
    return place / "data/prepared/camus.parquet"


@pytest.fixture(scope="module")
def tune(tmp_path_factory):
    os.environ.pop("RAY_ADDRESS", None)  # start a local cluster
    from heartseg.cluster import train as ray_train
    from heartseg.cluster import tune as ray_tune

    ray_train.start_ray(tmp_path_factory.mktemp("logs") / "ray.log", dashboard=True)
    yield ray_tune
    ray_train.shutdown()


class Script:
    """A source of trials of given recipes. `stop_after` has the epochs after which some stop."""

    def __init__(self, folder: Path, recipes, stop_after=()):
        self.folder = folder
        self.recipes = list(enumerate(recipes))
        self.stop_after = dict(stop_after)
        self.ends: dict[int, str | None] = {}

    def next(self):
        if not self.recipes:
            return None
        number, recipe = self.recipes.pop(0)
        (self.folder / str(number)).mkdir()
        return Trial(number, {}, self.folder / str(number), recipe)

    def epochs(self, number: int) -> list[int]:
        return [entry["epoch"] for entry in read_epochs(self.folder / str(number))]

    def epoch_done(self, number: int) -> bool:
        return self.epochs(number)[-1] >= self.stop_after.get(number, math.inf)

    def ended(self, number: int, fault: str | None) -> None:
        assert number not in self.ends, "the end was reported twice"
        self.ends[number] = fault

    def should_stop(self) -> bool:
        return False


def left_over() -> tuple[list[str], list[str]]:
    """Living actors and placement groups, once Ray has cleaned up."""
    import ray
    from ray._private import state

    for _ in range(40):
        living = [a["ActorClassName"] for a in state.actors().values() if a["State"] != "DEAD"]
        actors = [name for name in living if name != "_AutoscalingCoordinatorActor"]  # part of Ray
        groups = [
            g["name"] for g in ray.util.placement_group_table().values() if g["state"] != "REMOVED"
        ]
        if not actors and not groups:
            break
        time.sleep(0.5)
    return actors, groups


def test_trials_end_fail_and_stop_and_leave_nothing_behind(tune, params, prepared, tmp_path):
    fine = small_recipe(params, epochs=EPOCHS)
    larger = small_recipe(params, epochs=EPOCHS, input_size=48)
    hopeless = small_recipe(params, epochs=EPOCHS, learning_rate=1e30, schedule="constant")
    values = fine.model_dump(mode="json") | {"input_size": 2048}
    wide = {"name": "unet", "in_channels": 1, "channels": [4096, 2], "residual_units": 0}
    values["model"] = wide | {"dropout": 0.0}  # 17 GB per image, which the system refuses
    greedy = Recipe.model_validate(values)
    trials = Script(tmp_path, [fine, hopeless, fine, fine, greedy, larger], {2: 1, 3: 2})
    one = Resources(workers=1, cpus=1, gpus=0)
    tune.run_trials(trials, params.train, one, prepared, tmp_path)
    assert sorted(trials.ends) == [0, 1, 2, 3, 4, 5]
    assert {n: f for n, f in trials.ends.items() if n not in (1, 4)} == dict.fromkeys((0, 2, 3, 5))
    assert "lower learning_rate" in str(trials.ends[1])
    assert str(trials.ends[4]).startswith("out of memory: ")
    assert [trials.epochs(n) for n in (0, 2, 3, 5)] == [[1, 2, 3], [1], [1, 2], [1, 2, 3]]
    assert not (tmp_path / "tune").exists()
    assert left_over() == ([], [])


def test_a_trial_whose_process_dies_resumes_from_its_checkpoint(tune, params, prepared, tmp_path):
    recipe = small_recipe(params, epochs=40)
    trials = Script(tmp_path, [recipe])
    killed = []

    def kill_after_the_second_epoch():
        while len(read_epochs(tmp_path / "0")) < 2:
            time.sleep(0.01)
        children_running("ImplicitFunc")[0].kill()
        killed.append(len((tmp_path / "0" / "journal.jsonl").read_text().splitlines()))

    threading.Thread(target=kill_after_the_second_epoch, daemon=True).start()
    one = Resources(workers=1, cpus=1, gpus=0)
    tune.run_trials(trials, params.train, one, prepared, tmp_path)
    assert killed, "the trial ended before the kill"
    assert trials.ends == {0: None}
    assert trials.epochs(0) == list(range(1, 41))
    lines = (tmp_path / "0" / "journal.jsonl").read_text().splitlines()
    assert len(lines) <= 41, "more than the epoch that was cut off was done twice"


@pytest.mark.chaos
def test_a_trial_whose_process_dies_too_often_fails_alone(tune, params, prepared, tmp_path):
    """The system kills processes when memory runs out."""
    recipe = small_recipe(params, epochs=40)
    trials = Script(tmp_path, [recipe, small_recipe(params, epochs=1)])

    def kill():
        while not read_epochs(tmp_path / "0"):
            time.sleep(0.01)
        for process in children_running("ImplicitFunc"):
            process.kill()

    threading.Thread(target=kill, daemon=True).start()
    train = params.train.model_copy(update={"max_failures": 0})
    both = Resources(workers=1, cpus=2, gpus=0)  # one at a time
    tune.run_trials(trials, train, both, prepared, tmp_path)
    assert sorted(trials.ends) == [0, 1]
    assert "died" in str(trials.ends[0])
    assert trials.ends[1] is None


def test_trials_of_two_workers_stop_and_leave_nothing_behind(tune, params, prepared, tmp_path):
    long, recipe = small_recipe(params, epochs=500), small_recipe(params, epochs=EPOCHS)
    hopeless = small_recipe(params, epochs=EPOCHS, learning_rate=1e30, schedule="constant")
    trials = Script(tmp_path, [long, recipe, hopeless], {0: 1})
    pair = Resources(workers=2, cpus=1, gpus=0)
    assert tune.count_slots(pair) == 1
    tune.run_trials(trials, params.train, pair, prepared, tmp_path)
    assert trials.epochs(1) == [1, 2, 3]
    assert 1 <= len(trials.epochs(0)) < 500
    assert trials.ends[0] is None
    assert trials.ends[1] is None
    assert "lower learning_rate" in str(trials.ends[2])
    assert left_over() == ([], [])


@pytest.mark.chaos
def test_a_full_disk_ends_the_sweep_and_fails_no_trial(tune, params, prepared, tmp_path, disk):
    """A failed trial would never be tried again."""
    trials = Script(disk, [small_recipe(params, epochs=40), small_recipe(params, epochs=1)])

    def fill_after_the_second_epoch():
        while len(read_epochs(disk / "0")) < 2:
            time.sleep(0.01)
        fill(disk)

    threading.Thread(target=fill_after_the_second_epoch, daemon=True).start()
    both = Resources(workers=1, cpus=2, gpus=0)  # one at a time
    train = params.train.model_copy(update={"overlay_every": 0})
    with pytest.raises(InputError, match="could not be written: No space left on device"):
        tune.run_trials(trials, train, both, prepared, tmp_path)
    assert trials.ends == {}
    assert len(trials.recipes) == 1
    assert left_over() == ([], [])


def test_an_exception_of_the_source_ends_the_sweep(tune, params, prepared, tmp_path):
    """Tune itself would swallow the exception and continue."""
    trials = Script(tmp_path, [small_recipe(params, epochs=1)] * 3)

    def locked(number: int, fault: str | None) -> None:
        raise OSError("database is locked")

    trials.ended = locked
    both = Resources(workers=1, cpus=2, gpus=0)
    with pytest.raises(OSError, match="database is locked"):
        tune.run_trials(trials, params.train, both, prepared, tmp_path)
    assert trials.recipes


def test_a_trial_that_fits_nowhere_is_refused(tune, params, prepared, tmp_path):
    for resources in (
        Resources(workers=1, cpus=64, gpus=0),
        Resources(workers=64, cpus=1, gpus=0),
        Resources(workers=1, cpus=1, gpus=1),
    ):
        with pytest.raises(InputError, match="no trial fits on the cluster"):
            tune.run_trials(Script(tmp_path, []), params.train, resources, prepared, tmp_path)
    assert tune.count_slots(Resources(workers=1, cpus=1, gpus=0)) == os.cpu_count()
