"""The process of a trial: it trains, and reports epochs and failures to Ray Tune."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.actor import ActorHandle

from heartseg.cluster.train import OUT_OF_MEMORY, train_on_ray
from heartseg.config.params import Train
from heartseg.config.recipe import Recipe
from heartseg.config.sweep_file import Resources
from heartseg.errors import InputError, Stopped, StorageError
from heartseg.gc_tuning import relax_gc
from heartseg.training.run_dir import STOP

FAULT = "fault"
"""Key of the result that reports why the trial has failed."""
STORAGE = "storage"
"""Key of the result that reports a full disk, which ends the sweep."""


def worker_resources(resources: Resources) -> dict[str, float]:
    """Return the resources of one worker of a trial: amount by name, without zeros."""
    need = {"CPU": resources.cpus, "GPU": resources.gpus}
    return {name: amount for name, amount in need.items() if amount}


def run_trial(config: dict[str, Any], decoder: ActorHandle) -> None:
    """Run a trial of one worker in this process, which runs several trials one after another."""
    relax_gc()
    # By default, Tune gives up a slot if its previous trial takes more than 2 s to end.
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = "600"
    if not config["resources"]["gpus"]:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray does not hide GPUs from a trial without one
    import torch

    from heartseg.data.resident import Resident
    from heartseg.training.in_process import train_in_process
    from heartseg.training.loop import Epoch

    recipe = Recipe.model_validate(config["recipe"])
    torch.set_num_threads(max(1, math.floor(config["resources"]["cpus"])))
    arrays = ray.get(_images(decoder, recipe))
    data = {split: Resident.from_numpy(*parts) for split, parts in arrays.items()}

    def report(epoch: Epoch) -> None:
        tune.report({"epoch": epoch.number})

    failure: dict[str, str] = {}
    try:
        train_config = Train.model_validate(config["train"])
        train_in_process(recipe, train_config, data, Path(config["run_dir"]), after_epoch=report)
    except torch.AcceleratorError:
        raise  # this process cannot use its GPU any more; Tune starts another process
    except Exception as error:
        # Tune would treat an exception as a lost process and repeat the trial in vain.
        failure = _failure(error)
    # Outside the except block, because the exception refers to tensors on the GPU.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # the next trial's batches have other sizes
    if failure:
        tune.report(failure)


def run_distributed_trial(config: dict[str, Any], decoder: ActorHandle) -> None:
    """Run a trial of several workers, which Ray Train starts."""
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
            resources=worker_resources(Resources.model_validate(config["resources"])),
            callbacks=[TuneReportCallback()],
        )
    except Stopped:  # pruned
        return
    except (InputError, TrainingFailedError) as error:  # Ray Train has retried already
        tune.report(_failure(error))


def _images(decoder: ActorHandle, recipe: Recipe) -> ray.ObjectRef:
    """Return the reference that `train_on_ray` needs, for the recipe's input size."""
    return ray.get(decoder.decode.remote(recipe.input_size))[0]


def _failure(error: Exception) -> dict[str, str]:
    """Return the result that reports an error to the driver.

    The key is STORAGE if the disk is full, which ends the sweep, and FAULT otherwise.
    """
    import torch

    text = str(error)
    if isinstance(error, StorageError):
        return {STORAGE: text}
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text:
        return {FAULT: f"out of memory: {OUT_OF_MEMORY}"}
    return {FAULT: text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"}
