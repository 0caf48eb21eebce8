"""`fit` on the workers of a Ray cluster: data-parallel training with Ray Train (V2 API)."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if (
    not os.environ.get("RAY_ADDRESS")
    or (Path.home() / ".ray" / "auth_token").exists()
    or {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
):
    # Ray's own defaults for a local cluster, and for `ray start` where there is a token; a driver
    # must choose before ray is imported.
    os.environ.setdefault("RAY_AUTH_MODE", "token")

import ray

from heartseg.config import Train
from heartseg.errors import InputError
from heartseg.recipe import Recipe

if TYPE_CHECKING:
    from ray.train import UserCallback

    from heartseg.data.resident import Resident

FAULT = "fault.txt"
STOP = "stop"
"""A file of this name in the run's folder ends the training after the epoch."""
OUT_OF_MEMORY = "the GPU's memory is too small for this recipe; lower batch_size or input_size"


def start_ray(log: Path, *, dashboard: bool = False) -> None:
    """Join the cluster at RAY_ADDRESS, or start a local one; Ray's messages go to `log`.

    Args:
        log: file.
        dashboard: start a local one with the State API, by which Ray frees what the workers
            of a stopped trial held.

    Raises:
        InputError: no cluster answers at RAY_ADDRESS.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(log)
    for name in ("ray", "ray.train", "ray.tune", "ray.data"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # The controller looks for finished workers this often; its own 2 s are 2 s of every run.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")
    address = os.environ.get("RAY_ADDRESS")
    local: dict[str, Any] = {}
    if not address:
        # Preemption notices and the dashboard's pages concern clusters; each would be another
        # process to start before the first step.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        local = {"include_dashboard": dashboard}
    try:
        _knock(address)  # Ray itself would wait for minutes
        ray.init(
            address=address or "local",
            log_to_driver=False,
            configure_logging=False,
            **local,
        )
    except OSError as error:  # ConnectionError among them
        raise InputError(
            f"no Ray cluster answers at RAY_ADDRESS={address}: {error}; "
            "start one with `ray start --head`, or unset RAY_ADDRESS to train on this machine"
        ) from None


def _knock(address: str | None) -> None:
    """Raise OSError where HOST:PORT does not accept a connection."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def count_workers(train: Train, recipe: Recipe) -> int:
    """The configured number of workers.

    auto is one per GPU that the cluster has, or as many of them as can share the batch
    equally; without a GPU it is one.

    Raises:
        InputError: the cluster has fewer GPUs, or the workers cannot share the batch equally.
    """
    gpus = int(ray.cluster_resources().get("GPU", 0))
    if train.workers == "auto":
        return max(n for n in range(1, max(gpus, 1) + 1) if recipe.batch_size % n == 0)
    if 0 < gpus < train.workers:
        raise InputError(f"train.workers is {train.workers}, but the cluster has {gpus} GPU(s)")
    recipe.worker_batch(train.workers)
    return train.workers


def share_of_node(workers: int) -> dict[str, float]:
    """What Ray must have free for a worker, so that all of them fit."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    with_gpu = [resources for resources in alive if resources.get("GPU")]
    if with_gpu:
        cpus = min(resources.get("CPU", 0) / resources["GPU"] for resources in with_gpu)
    else:
        useful = [resources["CPU"] for resources in alive if resources.get("CPU")]
        cpus = min(useful) / math.ceil(workers / len(useful))
    # Ray counts in ten thousandths; less than one CPU lets several workers share a core.
    wanted = {"CPU": float(math.floor(cpus)) if cpus >= 1 else math.floor(cpus * 1e4) / 1e4}
    return wanted | ({"GPU": 1.0} if with_gpu else {})


def train_on_cluster(
    recipe: Recipe, train: Train, data: dict[str, Resident], run_dir: Path
) -> Path:
    """Train on all of the cluster; see `train_on_ray`."""
    workers = count_workers(train, recipe)  # an impossible number is refused before any starts
    resources = share_of_node(workers)
    return train_on_ray(recipe, train, put(data), run_dir, workers=workers, resources=resources)


def put(data: dict[str, Resident]) -> ray.ObjectRef:
    """Images in the object store, from where every process of a node reads the same copy."""
    return ray.put({split: part.arrays() for split, part in data.items()})


def train_on_ray(
    recipe: Recipe,
    train: Train,
    data: ray.ObjectRef,
    run_dir: Path,
    *,
    workers: int,
    resources: dict[str, float],
    callbacks: Sequence[UserCallback] = (),
) -> Path:
    """Train with some workers; a run that was cut off goes on from its last checkpoint.

    Args:
        recipe: what to train.
        train: how to train.
        data: from `put`, "train" and "val".
        run_dir: folder of this run; on several nodes a folder that all of them see.
        workers: processes that train together.
        resources: what each of them takes of the cluster.
        callbacks: of Ray Train's controller.

    Returns:
        The folder of the last checkpoint.

    Raises:
        InputError: recipe and cluster do not fit together, or a worker found a fault of the
            user's.
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    for name in (FAULT, STOP):
        (run_dir / name).unlink(missing_ok=True)
    trainer = TorchTrainer(
        _work,
        train_loop_config={
            "recipe": recipe.model_dump(mode="json"),
            "train": train.model_dump(mode="json"),
            "arrays": data,
            "run_dir": str(run_dir),
            "directory": os.getcwd(),
            "threads": max(1, math.floor(resources.get("CPU", 1))),
        },
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu="GPU" in resources, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=str(run_dir),
            failure_config=FailureConfig(max_failures=train.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            callbacks=list(callbacks),
        ),
    )
    result = trainer.fit()
    if (run_dir / FAULT).exists():
        raise InputError((run_dir / FAULT).read_text(encoding="utf-8"))
    return Path(result.checkpoint.path)


class _Stopped(Exception):
    """The training was told to end."""


def _work(config: dict[str, Any]) -> None:
    """One worker's part, in a process of its own."""
    import torch
    from ray import train as ray_train

    from heartseg.data.resident import Resident
    from heartseg.training.checkpoint import load_checkpoint, save_checkpoint
    from heartseg.training.journal import Journal
    from heartseg.training.loop import Epoch, fit
    from heartseg.training.machine import note_machine

    context = ray_train.get_context()
    rank = context.get_world_rank()
    recipe = Recipe.model_validate(config["recipe"])
    how = Train.model_validate(config["train"])
    run_dir = Path(config["run_dir"])
    torch.set_num_threads(config["threads"])
    with contextlib.suppress(OSError):  # Ray changed it; a recipe's weights may be relative to it
        os.chdir(config["directory"])
    arrays = ray.get(config["arrays"])
    data = {split: Resident.from_numpy(*parts) for split, parts in arrays.items()}
    journal = Journal(run_dir, data["val"], how.overlay_every, how.overlay_cases)

    device = ray_train.torch.get_device()
    if rank == 0:
        note_machine(run_dir, device, "ray", context.get_world_size())

    def report(epoch: Epoch) -> None:
        if epoch.state is None:
            ray_train.report({"epoch": epoch.number})
        else:
            journal.write_epoch(epoch)  # before the checkpoint: an epoch told twice, never lost
            with tempfile.TemporaryDirectory() as folder:
                save_checkpoint(Path(folder), epoch.state)
                kept = ray_train.Checkpoint.from_directory(folder)
                ray_train.report({"epoch": epoch.number, **epoch.metrics}, checkpoint=kept)
        # One worker looks for all: the file may appear while they look.
        told = torch.tensor(float(rank == 0 and (run_dir / STOP).exists()), device=device)
        if context.get_world_size() > 1:
            torch.distributed.all_reduce(told)
        if told:
            raise _Stopped

    resume_from = None
    if (checkpoint := ray_train.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            resume_from = load_checkpoint(Path(folder))
    try:
        fit(
            recipe,
            data["train"],
            data["val"],
            report=report,
            device=device,
            rank=rank,
            world_size=context.get_world_size(),
            resume_from=resume_from,
            device_memory_fraction=how.device_memory_fraction,
            clinical=how.clinical_metrics,
            on_step=journal.write_step if rank == 0 else None,
        )
    except _Stopped:
        return
    except (InputError, torch.OutOfMemoryError) as error:
        # Raised, it would count as a lost worker and be tried again, to end the same.
        text = str(error) if isinstance(error, InputError) else OUT_OF_MEMORY
        (run_dir / FAULT).write_text(text, encoding="utf-8")


def shutdown() -> None:
    """Leave the cluster; a local one ends."""
    ray.shutdown()
