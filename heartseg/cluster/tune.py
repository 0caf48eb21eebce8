"""The trials of a sweep on a Ray cluster, run by Ray Tune.

Tune starts trials when resources are free, reuses their processes, and replaces a process that
dies. All decisions and results pass through a `TrialSource`. Tune keeps no state that would have to
be restored after a kill.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import tune
from ray.actor import ActorHandle
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from heartseg.cluster.decode_images import Decoder
from heartseg.cluster.trial import (
    FAULT,
    STORAGE,
    run_distributed_trial,
    run_trial,
    worker_resources,
)
from heartseg.config.params import Train
from heartseg.config.sweep_file import Resources
from heartseg.errors import InputError, StorageError
from heartseg.tracking.trial import Trial
from heartseg.training.run_dir import STOP


class TrialSource(Protocol):
    """The decisions of a sweep. All methods are called from the thread that runs `run_trials`."""

    def next(self) -> Trial | None:
        """Return the next trial to run, which has a recipe, or None if there are no more."""
        ...

    def epoch_done(self, number: int) -> bool:
        """Handle the end of an epoch and return whether to stop the trial."""
        ...

    def ended(self, number: int, fault: str | None) -> None:
        """Handle the end of a trial.

        Args:
            number: Number of the trial.
            fault: Reason of the failure, or None if the trial finished or was stopped.
        """
        ...

    def should_stop(self) -> bool:
        """Return whether to end the sweep. Running trials are then interrupted."""
        ...


def count_slots(resources: Resources) -> int:
    """Return the number of trials that the cluster can run at the same time.

    Raises:
        InputError: If the cluster cannot run a single trial.
    """
    need = worker_resources(resources)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    workers = sum(
        min(math.floor(have.get(name, 0) / amount + 1e-9) for name, amount in need.items())
        for have in nodes
    )
    if slots := workers // resources.workers:
        return slots
    has = [{name: have.get(name, 0) for name in ("CPU", "GPU")} for have in nodes]
    raise InputError(
        f"no trial fits on the cluster: a trial needs {resources.workers} worker(s) with {need} "
        f"each, the nodes have {has}; lower resources in the sweep file"
    )


def run_trials(
    trials: TrialSource,
    train_config: Train,
    resources: Resources,
    prepared: Path,
    folder: Path,
) -> None:
    """Run trials until there are no more, or until the sweep is to stop.

    Args:
        trials: Source of the trials, which also receives their results.
        train_config: Section `train` of params.yaml.
        resources: Resources of one trial.
        prepared: Path of the prepared dataset. Its images are decoded on this node when the first
            trial of each input size starts, and shared through the object store.
        folder: Folder for Tune's temporary files. All nodes must share it.

    Raises:
        InputError: If a trial does not fit on the cluster.
        StorageError: If a disk is full. The running trials are then interrupted.
        Exception: If `trials` raised it.
    """
    slots = count_slots(resources)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0, max_restarts=3, max_task_retries=3)(Decoder)
    decoder = actor.options(scheduling_strategy=here).remote(prepared.resolve())
    single = resources.workers == 1
    run = run_trial if single else run_distributed_trial
    # The process that starts the workers of a distributed trial only waits for them. If it took a
    # CPU, the workers might never fit. Tune requires some resource, so it takes a byte of memory.
    needs = worker_resources(resources) if single else {"memory": 1}
    running = _RunningTrials(trials, decoder, distributed=not single)
    with _quiet_tune(folder):
        tune.Tuner(
            tune.with_resources(tune.with_parameters(run, decoder=decoder), needs),
            param_space={
                "train": train_config.model_dump(mode="json"),
                "resources": resources.model_dump(mode="json"),
            },
            tune_config=tune.TuneConfig(
                search_alg=_StudySearcher(running),
                num_samples=-1,  # until the searcher returns FINISHED
                max_concurrent_trials=slots,
                # Starting a process and importing torch takes as long as many a short trial.
                reuse_actors=single,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(folder),
                stop=_TrialStopper(running),
                callbacks=[_TrialCallback(running)],
                failure_config=tune.FailureConfig(max_failures=train_config.max_failures),
                verbose=0,
            ),
        ).fit()
    ray.kill(decoder)  # the object store still holds a copy of its handle
    if running.error is not None:
        raise running.error


@contextmanager
def _quiet_tune(folder: Path) -> Iterator[None]:
    """Disable Tune's loggers, tables, snapshots and handler of Ctrl-C."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "100000"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # paths of a recipe are relative to the repository
    shutil.rmtree(folder / "tune", ignore_errors=True)
    try:
        yield
    finally:
        shutil.rmtree(folder / "tune", ignore_errors=True)


class _RunningTrials:
    """State that Tune's searcher, stopper and callback share.

    Attributes:
        numbers: Number of each running trial, by Tune's id.
        stopped: Numbers of the trials that were told to stop.
        error: Exception that ends the sweep, or None.
    """

    def __init__(self, source: TrialSource, decoder: ActorHandle, distributed: bool):
        self.source = source
        self.decoder = decoder
        self.distributed = distributed
        self.numbers: dict[str, int] = {}
        self.stopped: set[int] = set()
        self.error: Exception | None = None

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        """Return an empty object: Tune pickles its arguments for a restore that is not used."""
        return object, ()

    def __deepcopy__(self, memo: dict[int, Any]) -> _RunningTrials:
        return self

    def should_stop(self) -> bool:
        return self.error is not None or self.source.should_stop()

    def end(self, trial_id: str, fault: str | None) -> None:
        """Report the end of a trial, unless it was reported before."""
        if (number := self.numbers.pop(trial_id, None)) is not None:
            try:
                self.source.ended(number, fault)
            except Exception as error:  # Tune would swallow it and continue
                self.error = error


class _StudySearcher(Searcher):
    """Passes the trials of the sweep to Tune."""

    def __init__(self, running: _RunningTrials):
        super().__init__()
        self.running = running

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        trial = None if self.running.should_stop() else self.running.source.next()
        if trial is None:
            return Searcher.FINISHED
        assert trial.recipe is not None
        self.running.numbers[trial_id] = trial.number
        self.running.decoder.decode.remote(trial.recipe.input_size)  # while the process starts
        return {"recipe": trial.recipe.model_dump(mode="json"), "run_dir": str(trial.run_dir)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        result = result or {}
        if STORAGE in result:
            self.running.error = StorageError(result[STORAGE])
        elif not error:  # _TrialCallback gets the text of an error
            self.running.end(trial_id, result.get(FAULT))

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the state belongs to the sweep."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the state belongs to the sweep."""


class _TrialStopper(tune.Stopper):
    """Stops trials that are pruned or have failed, and all trials when the sweep ends."""

    def __init__(self, running: _RunningTrials):
        self.running = running

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        if FAULT in result or STORAGE in result:
            return True
        running = self.running
        number = running.numbers.get(trial_id)
        if number is None or number in running.stopped or not running.source.epoch_done(number):
            return False
        running.stopped.add(number)
        if running.distributed:
            # A killed trial would leave the placement group of its workers behind, so it is told
            # to end by itself.
            (Path(result["config"]["run_dir"]) / STOP).touch()
            return False
        return True

    def stop_all(self) -> bool:
        return self.running.should_stop()


class _TrialCallback(tune.Callback):
    """Reports trials that raised an exception or whose process died."""

    def __init__(self, running: _RunningTrials):
        self.running = running

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        text = str(trial.get_error() or "the process died").strip()
        if "low on memory" in text or "OutOfMemoryError" in text:
            text = (
                "out of memory: Ray killed the trial because its node ran low on memory; lower "
                "batch_size or input_size"
            )
        self.running.end(trial.trial_id, text.splitlines()[-1][:500])
