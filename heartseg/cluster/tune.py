"""The trials of a sweep on a Ray cluster, by Ray Tune.

Tune starts trials where there is room, keeps their processes for the next ones, and replaces a
process that dies. It holds no state of its own: what to try and what became of it is asked and
told through `Trials`, so there is nothing of Tune's to be restored after a kill.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import tune
from ray.actor import ActorHandle
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from heartseg.cluster.decode import Decoder
from heartseg.cluster.train import OUT_OF_MEMORY, train_on_ray
from heartseg.config.params import Train
from heartseg.config.recipe import Recipe
from heartseg.config.sweep_file import Resources
from heartseg.errors import InputError, Stopped, StorageError
from heartseg.gc_tuning import relax_gc
from heartseg.training.run_dir import STOP

FAULT = "fault"
STORAGE = "storage"


@dataclass(frozen=True)
class TrialPlan:
    """A trial as Tune is to run it.

    Attributes:
        number: names the trial.
        recipe: what is trained.
        run_dir: folder of its checkpoint and journal; on several nodes all of them see it.
    """

    number: int
    recipe: Recipe
    run_dir: Path


class Trials(Protocol):
    """What a sweep decides; called from the thread that runs `run_trials`."""

    def next(self) -> TrialPlan | None:
        """A trial to run, None where there are no more."""
        ...

    def epoch_done(self, number: int) -> bool:
        """Told after each epoch; True stops the trial."""
        ...

    def ended(self, number: int, fault: str | None) -> None:
        """Told when a trial has run to its end, was stopped by `epoch_done`, or failed."""
        ...

    def should_stop(self) -> bool:
        """Whether the sweep ends now; trials that run are then left as they are."""
        ...


def count_slots(resources: Resources) -> int:
    """How many trials the cluster can run at once.

    Raises:
        InputError: not a single one.
    """
    need = _of_worker(resources)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    workers = sum(
        min(math.floor(have.get(name, 0) / amount + 1e-9) for name, amount in need.items())
        for have in nodes
    )
    if slots := workers // resources.workers:
        return slots
    has = [{name: have.get(name, 0) for name in ("CPU", "GPU")} for have in nodes]
    raise InputError(
        f"no trial fits on the cluster: it takes {resources.workers} worker(s) with {need} each, "
        f"the nodes have {has}; lower resources in the sweep's file"
    )


def run_trials(
    trials: Trials,
    train: Train,
    resources: Resources,
    prepared: Path,
    folder: Path,
) -> None:
    """Run trials until there are no more, or until the sweep is to stop.

    Args:
        trials: says what to run and hears what became of it.
        train: how to train.
        resources: of one trial.
        prepared: the prepared dataset. Its images are decoded on this node, once for each input
            size, when the first trial needs it, and shared through the object store.
        folder: for what Tune writes meanwhile; on several nodes all of them see it.

    Raises:
        InputError: a trial does not fit on the cluster.
        StorageError: a disk is full; the trials that it befell are left as they are.
        Exception: what `trials` raised.
    """
    slots = count_slots(resources)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0, max_restarts=3, max_task_retries=3)(Decoder)
    decoder = actor.options(scheduling_strategy=here).remote(prepared.resolve())
    run = _run_trial if resources.workers == 1 else _run_nested_trial
    # The process that starts a trial's workers only waits for them: a CPU of its own could keep
    # them from ever fitting. Tune wants it to take something: a byte of memory.
    needs = _of_worker(resources) if resources.workers == 1 else {"memory": 1}
    ears = _Ears(trials, decoder, nested=resources.workers > 1)
    with _quiet_tune(folder):
        tune.Tuner(
            tune.with_resources(tune.with_parameters(run, decoder=decoder), needs),
            param_space={
                "train": train.model_dump(mode="json"),
                "resources": resources.model_dump(mode="json"),
            },
            tune_config=tune.TuneConfig(
                search_alg=_Suggest(ears),
                num_samples=-1,  # until the searcher says that there are no more
                max_concurrent_trials=slots,
                # Starting a process and importing torch costs as much as many a short trial.
                reuse_actors=resources.workers == 1,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(folder),
                stop=_Stop(ears),
                callbacks=[_Listen(ears)],
                failure_config=tune.FailureConfig(max_failures=train.max_failures),
                verbose=0,
            ),
        ).fit()
    ray.kill(decoder)  # a copy of its handle lies in the object store
    if ears.fault is not None:
        raise ears.fault


def _of_worker(resources: Resources) -> dict[str, float]:
    need = {"CPU": resources.cpus, "GPU": resources.gpus}
    return {name: amount for name, amount in need.items() if amount}


@contextmanager
def _quiet_tune(folder: Path) -> Iterator[None]:
    """Tune without its own loggers, tables, snapshots and Ctrl-C."""
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


# --- on the driver: Tune's searcher, stopper and callback pass everything on -----------------


class _Ears:
    """Knows which of our trials a trial of Tune is, and tells each end once."""

    def __init__(self, trials: Trials, decoder: ActorHandle, nested: bool):
        self.trials = trials
        self.decoder = decoder
        self.nested = nested
        self.numbers: dict[str, int] = {}
        self.stopped: set[int] = set()
        self.fault: Exception | None = None

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        """Tune pickles all it is given, for a restore that we do not use."""
        return object, ()

    def __deepcopy__(self, memo: dict[int, Any]) -> _Ears:
        return self

    def over(self) -> bool:
        return self.fault is not None or self.trials.should_stop()

    def ended(self, trial_id: str, fault: str | None) -> None:
        if (number := self.numbers.pop(trial_id, None)) is not None:
            try:
                self.trials.ended(number, fault)
            except Exception as error:  # Tune would try again, and then go on
                self.fault = error


class _Suggest(Searcher):
    def __init__(self, ears: _Ears):
        super().__init__()
        self.ears = ears

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        plan = None if self.ears.over() else self.ears.trials.next()
        if plan is None:
            return Searcher.FINISHED
        self.ears.numbers[trial_id] = plan.number
        self.ears.decoder.decode.remote(plan.recipe.input_size)  # while the trial's process starts
        return {"recipe": plan.recipe.model_dump(mode="json"), "run_dir": str(plan.run_dir)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        result = result or {}
        if STORAGE in result:
            self.ears.fault = StorageError(result[STORAGE])
        elif not error:  # of an error _Listen hears more
            self.ears.ended(trial_id, result.get(FAULT))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the state is the sweep's."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the state is the sweep's."""


class _Stop(tune.Stopper):
    def __init__(self, ears: _Ears):
        self.ears = ears

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        if FAULT in result or STORAGE in result:
            return True
        number = self.ears.numbers.get(trial_id)
        if number is None or number in self.ears.stopped:
            return False
        if not self.ears.trials.epoch_done(number):
            return False
        self.ears.stopped.add(number)
        if self.ears.nested:
            # Killed, it would leave its workers' placement group behind; so it ends by itself.
            (Path(result["config"]["run_dir"]) / STOP).touch()
            return False
        return True

    def stop_all(self) -> bool:
        return self.ears.over()


class _Listen(tune.Callback):
    def __init__(self, ears: _Ears):
        self.ears = ears

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        text = str(trial.get_error() or "the process died").strip()
        if "low on memory" in text or "OutOfMemoryError" in text:
            text = "out of memory: Ray ended it for the node's sake; lower batch_size or input_size"
        self.ears.ended(trial.trial_id, text.splitlines()[-1][:500])


# --- in a trial's process ------------------------------------------------------------------


def _run_trial(config: dict[str, Any], decoder: ActorHandle) -> None:
    """A trial of one worker: `fit` in this very process, which serves many trials in turn."""
    relax_gc()
    # After 2 s of waiting for the trial before, Tune would lose this one's slot for good.
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = "600"
    if not config["resources"]["gpus"]:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray hides a GPU only from whom it gives another
    import torch

    from heartseg.data.resident import Resident
    from heartseg.training.in_process import train_in_process
    from heartseg.training.loop import Epoch

    recipe = Recipe.model_validate(config["recipe"])
    torch.set_num_threads(max(1, math.floor(config["resources"]["cpus"])))
    arrays = ray.get(_images(decoder, recipe))
    data = {split: Resident.from_numpy(*parts) for split, parts in arrays.items()}

    def tell(epoch: Epoch) -> None:
        tune.report({"epoch": epoch.number})

    outcome: dict[str, str] = {}
    try:
        train = Train.model_validate(config["train"])
        train_in_process(recipe, train, data, Path(config["run_dir"]), after_epoch=tell)
    except torch.AcceleratorError:
        raise  # this process can use its GPU no more; Tune starts another one
    except Exception as error:
        # Raised, it would count as a lost process and be tried again, to end the same.
        outcome = _told(error)
    # Only now: an exception holds the tensors that it has met.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # the next trial's batches have other sizes
    if outcome:
        tune.report(outcome)


def _run_nested_trial(config: dict[str, Any], decoder: ActorHandle) -> None:
    """A trial of several workers, which Ray Train starts."""
    from ray.train import TrainingFailedError
    from ray.tune.integration.ray_train import TuneReportCallback

    recipe = Recipe.model_validate(config["recipe"])
    (Path(config["run_dir"]) / STOP).unlink(missing_ok=True)
    try:
        train_on_ray(
            recipe,
            Train.model_validate(config["train"]),
            _images(decoder, recipe),
            Path(config["run_dir"]),
            workers=config["resources"]["workers"],
            resources=_of_worker(Resources.model_validate(config["resources"])),
            callbacks=[TuneReportCallback()],
        )
    except Stopped:  # pruned
        return
    except (InputError, TrainingFailedError) as error:  # Train has tried again already
        tune.report(_told(error))


def _images(decoder: ActorHandle, recipe: Recipe) -> ray.ObjectRef:
    """What `heartseg.cluster.train.put` gives, for the recipe's input size."""
    return ray.get(decoder.decode.remote(recipe.input_size))[0]


def _told(error: Exception) -> dict[str, str]:
    """What the driver is told of it: the trial has failed, or the disk, which ends the sweep."""
    return {STORAGE if isinstance(error, StorageError) else FAULT: _reason(error)}


def _reason(error: Exception) -> str:
    import torch

    text = str(error)
    lacking = isinstance(error, torch.OutOfMemoryError | MemoryError)
    if lacking or "can't allocate memory" in text:
        return f"out of memory: {OUT_OF_MEMORY}"
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"
