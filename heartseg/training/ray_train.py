"""`fit` on the workers of a Ray cluster: data-parallel training with Ray Train (V2 API)."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not os.environ.get("RAY_ADDRESS"):
    # Ray's own default for a local cluster, but without its warning; read when ray is imported.
    os.environ.setdefault("RAY_AUTH_MODE", "token")

import ray

from heartseg.config import Recipe, Train
from heartseg.errors import InputError

if TYPE_CHECKING:
    from heartseg.data.resident import Resident

FAULT = "fault.txt"


def start_ray(log: Path) -> None:
    """Join the cluster at RAY_ADDRESS, or start a local one; Ray's messages go to `log`.

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
        local = {"include_dashboard": False}
    try:
        ray.init(
            address=address or "local",
            log_to_driver=False,
            configure_logging=False,
            **local,
        )
    except ConnectionError as error:
        raise InputError(
            f"no Ray cluster answers at RAY_ADDRESS={address}: {error}; "
            "start one with `ray start --head`, or unset RAY_ADDRESS to train on this machine"
        ) from None


def count_workers(train: Train) -> int:
    """The configured number of workers; auto is one per GPU that the cluster has, else one."""
    if train.workers != "auto":
        return train.workers
    return max(1, int(ray.cluster_resources().get("GPU", 0)))


def train_on_ray(
    recipe: Recipe,
    train: Train,
    data: dict[str, Resident],
    run_dir: Path,
) -> Path:
    """Train on the cluster; a run that was cut off goes on from its last checkpoint.

    Args:
        recipe: what to train.
        train: how to train.
        data: "train" and "val"; shared through the object store, not copied per worker.
        run_dir: folder of this run; on several nodes a folder that all of them see.

    Returns:
        The folder of the last checkpoint.

    Raises:
        InputError: recipe and cluster do not fit together, or a worker found a fault of the
            user's.
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    workers = count_workers(train)
    recipe.worker_batch(workers)  # refuse before any worker starts
    gpu = ray.cluster_resources().get("GPU", 0) > 0
    threads = _threads_per_worker(workers)
    (run_dir / FAULT).unlink(missing_ok=True)
    trainer = TorchTrainer(
        _work,
        train_loop_config={
            "recipe": recipe.model_dump(mode="json"),
            "train": train.model_dump(mode="json"),
            "arrays": ray.put({split: part.arrays() for split, part in data.items()}),
            "run_dir": str(run_dir),
            "threads": threads,
        },
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=gpu, resources_per_worker=_resources(threads, gpu)
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=str(run_dir),
            failure_config=FailureConfig(max_failures=train.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    result = trainer.fit()
    if (run_dir / FAULT).exists():
        raise InputError((run_dir / FAULT).read_text(encoding="utf-8"))
    return Path(result.checkpoint.path)


def _threads_per_worker(workers: int) -> int:
    """CPU threads that a worker may use when the workers spread over the nodes."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    cores = min(int(node["Resources"].get("CPU", 1)) for node in nodes)
    return max(1, cores // -(-workers // len(nodes)))


def _resources(threads: int, gpu: bool) -> dict[str, float]:
    return {"CPU": threads, "GPU": 1} if gpu else {"CPU": threads}


def _work(config: dict[str, Any]) -> None:
    """One worker's part, in a process of its own."""
    import torch
    from ray import train as ray_train

    from heartseg.data.resident import Resident
    from heartseg.training.checkpoint import load_checkpoint, save_checkpoint
    from heartseg.training.journal import Journal
    from heartseg.training.loop import Epoch, fit

    context = ray_train.get_context()
    rank = context.get_world_rank()
    recipe = Recipe.model_validate(config["recipe"])
    how = Train.model_validate(config["train"])
    run_dir = Path(config["run_dir"])
    torch.set_num_threads(config["threads"])
    arrays = ray.get(config["arrays"])
    data = {split: Resident.from_numpy(*parts) for split, parts in arrays.items()}
    journal = Journal(run_dir, data["val"], how.overlay_every, how.overlay_cases)

    def report(epoch: Epoch) -> None:
        if epoch.state is None:
            ray_train.report({"epoch": epoch.number})
            return
        journal.write_epoch(epoch)  # before the checkpoint: an epoch may be told twice, never lost
        with tempfile.TemporaryDirectory() as folder:
            save_checkpoint(Path(folder), epoch.state)
            kept = ray_train.Checkpoint.from_directory(folder)
            ray_train.report({"epoch": epoch.number, **epoch.metrics}, checkpoint=kept)

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
            device=ray_train.torch.get_device(),
            rank=rank,
            world_size=context.get_world_size(),
            resume_from=resume_from,
            device_memory_fraction=how.device_memory_fraction,
            on_step=journal.write_step if rank == 0 else None,
        )
    except InputError as error:
        # Found by all workers alike. Raised, it would count as a lost worker and be tried again.
        if rank == 0:
            (run_dir / FAULT).write_text(str(error), encoding="utf-8")


def shutdown() -> None:
    """Leave the cluster; a local one ends."""
    ray.shutdown()
