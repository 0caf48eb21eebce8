"""Data-parallel training on a Ray cluster: `fit` on the workers of Ray Train (V2 API)."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from heartseg.cluster.watch import watched
from heartseg.config.params import Elastic, Train
from heartseg.config.recipe import Recipe
from heartseg.errors import InputError, Stopped
from heartseg.gc_tuning import relax_gc
from heartseg.training.run_dir import STOP

if TYPE_CHECKING:
    from ray.train import UserCallback

    from heartseg.data.resident import Resident
    from heartseg.training.loop import State

FAULT = "fault.txt"
STOPPED = "stopped"
ENDING = {signal.SIGTERM, signal.SIGHUP}
"""Signals of a scheduler or a closed terminal. They often reach the command and its children."""
ADDRESS = re.compile(r"(ray://)?(\[[0-9A-Fa-f:]+\]|[\w.-]+):(?P<port>\d{1,5})")
OUT_OF_MEMORY = "the GPU memory is too small for this recipe; lower batch_size or input_size"


def start_ray(log: Path, *, dashboard: bool = False) -> None:
    """Join the cluster at RAY_ADDRESS, or start a local one.

    The processes of a local cluster ignore the signals in `ENDING`. The command handles them: it
    lets its workers write a checkpoint and then shuts Ray down.

    Args:
        log: File for Ray's messages.
        dashboard: Whether to start a local cluster with the State API, which Ray needs to free the
            resources of a stopped trial's workers.

    Raises:
        InputError: If RAY_ADDRESS is malformed, if no cluster answers there, or if Ray cannot be
            started on this machine.
    """
    address = os.environ.get("RAY_ADDRESS") or "local"
    _check_address(address)
    log.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(log)
    for name in ("ray", "ray.train", "ray.tune", "ray.data"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # The controller polls for finished workers this often. Ray's default adds 2 s to each run.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")
    # Wait 20 s for a lost node to come back, then continue with fewer workers.
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "20")
    # Ray's default of 30 s is too short on a busy machine.
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "120")
    local: dict[str, Any] = {}
    if address == "local":
        # A local cluster needs neither preemption notices nor the dashboard. Each would be one
        # more process to start before the first step.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        local = {"include_dashboard": dashboard}
    at_sigterm = signal.getsignal(signal.SIGTERM)
    # All processes of a local Ray inherit the mask, as they inherit Ray's own block of SIGINT.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        _check_reachable(address)  # Ray itself would wait for minutes
        ray.init(address=address, log_to_driver=False, configure_logging=False, **local)
    except OSError as error:  # includes ConnectionError
        raise InputError(_no_ray(address, error)) from None
    finally:
        if callable(at_sigterm):  # Ray replaces the handler of the command
            signal.signal(signal.SIGTERM, at_sigterm)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _check_address(address: str) -> None:
    found = ADDRESS.fullmatch(address)
    if address in ("local", "auto") or (found and 0 < int(found["port"]) < 65536):
        return
    raise InputError(
        f"RAY_ADDRESS={address} is not the address of a Ray cluster; set it to HOST:PORT as "
        "printed by `ray start --head` (the port is usually 6379), set it to auto for a cluster on "
        "this machine, or unset it to start Ray for this command only"
    )


def _no_ray(address: str, error: OSError) -> str:
    if "AF_UNIX path length" in str(error):
        name = "RAY_TMPDIR" if os.environ.get("RAY_TMPDIR") else "TMPDIR"
        return (
            f"{name}={os.environ.get(name)} is too long: Ray puts its sockets into this folder, "
            "and the system allows 107 bytes for the path of a socket. Set RAY_TMPDIR to a short "
            "path, for example /tmp"
        )
    if address == "local":
        return f"Ray cannot start on this machine: {error}. Fix this, or use --in-process"
    return (
        f"no Ray cluster answers at RAY_ADDRESS={address}: {error}; "
        "start one with `ray start --head`, or unset RAY_ADDRESS to train on this machine; if the "
        "cluster uses a token, set RAY_AUTH_TOKEN_PATH to the file of the same token"
    )


def _check_reachable(address: str) -> None:
    """Raise OSError if HOST:PORT does not accept a connection."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def count_workers(train_config: Train, recipe: Recipe) -> int | tuple[int, int]:
    """Return the number of workers, or the smallest and the largest number if it is elastic.

    `auto` stands for one worker per GPU of the cluster, or for the largest number of GPUs that
    divides the batch size. Without a GPU it stands for one worker.

    Raises:
        InputError: If the cluster has fewer GPUs than workers, or if the number of workers does
            not divide the batch size.
    """
    workers = train_config.workers
    if isinstance(workers, Elastic):
        for number in range(workers.min, workers.max + 1):
            recipe.worker_batch(number)
        return workers.min, workers.max
    gpus = int(ray.cluster_resources().get("GPU", 0))
    if workers == "auto":
        return max(n for n in range(1, max(gpus, 1) + 1) if recipe.batch_size % n == 0)
    if 0 < gpus < workers:
        raise InputError(
            f"train.workers is {workers}, but the cluster has {gpus} GPU(s); lower train.workers"
        )
    recipe.worker_batch(workers)
    return workers


def share_of_node(workers: int) -> dict[str, float]:
    """Return the resources to reserve for each worker so that all of them fit on the cluster.

    Returns:
        Amount by name, such as {"CPU": 4.0, "GPU": 1.0}.
    """
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    with_gpu = [resources for resources in alive if resources.get("GPU")]
    if with_gpu:
        cpus = min(resources.get("CPU", 0) / resources["GPU"] for resources in with_gpu)
    else:
        useful = [resources["CPU"] for resources in alive if resources.get("CPU")]
        cpus = min(useful) / math.ceil(workers / len(useful))
    # Ray counts in units of 1/10000. Workers share a core if each gets less than one CPU.
    wanted = {"CPU": float(math.floor(cpus)) if cpus >= 1 else math.floor(cpus * 1e4) / 1e4}
    return wanted | ({"GPU": 1.0} if with_gpu else {})


def _threads(resources: dict[str, float]) -> int:
    """Return a worker's number of threads: one per CPU, but at most OMP_NUM_THREADS."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    cpus = max(1, math.floor(resources.get("CPU", 1)))
    return min(cpus, int(wanted)) if wanted.isdigit() and int(wanted) else cpus


def train_on_cluster(
    recipe: Recipe, train_config: Train, data: dict[str, Resident], run_dir: Path
) -> Path:
    """Train on the whole cluster. See `train_on_ray`."""
    workers = count_workers(train_config, recipe)
    resources = share_of_node(workers if isinstance(workers, int) else workers[1])
    return train_on_ray(
        recipe, train_config, put(data), run_dir, workers=workers, resources=resources
    )


def put(data: dict[str, Resident]) -> ray.ObjectRef:
    """Put images into the object store, where all processes of a node share one copy."""
    return ray.put({split: part.arrays() for split, part in data.items()})


def train_on_ray(
    recipe: Recipe,
    train_config: Train,
    data: ray.ObjectRef,
    run_dir: Path,
    *,
    workers: int | tuple[int, int],
    resources: dict[str, float],
    callbacks: Sequence[UserCallback] = (),
) -> Path:
    """Train with several workers. An interrupted run resumes from its last checkpoint.

    Args:
        recipe: Recipe of the model.
        train_config: Section `train` of params.yaml.
        data: Reference returned by `put`, with the splits "train" and "val".
        run_dir: Folder of this run. All nodes must share it.
        workers: Number of processes that train together, or the smallest and the largest number.
        resources: Resources to reserve for each worker, as returned by `share_of_node`.
        callbacks: Callbacks of Ray Train's controller.

    Returns:
        `run_dir`, which contains the last checkpoint.

    Raises:
        InputError: If the recipe does not fit the cluster, or if a worker raised an InputError.
        Stopped: If the run folder contains a stop file.
        KeyboardInterrupt: Immediately on Ctrl-C.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    class Trainer(TorchTrainer):
        def _register_sigint_handler(self, controller: Any) -> None:
            """Leave Ctrl-C to the command. Ray's handler would end it without a message."""

    if (run_dir / STOP).exists():
        raise Stopped  # the signal came while Ray started
    (run_dir / FAULT).unlink(missing_ok=True)
    elastic = train_config.workers if isinstance(train_config.workers, Elastic) else None
    trainer = Trainer(
        _work,
        train_loop_config={
            "recipe": recipe.model_dump(mode="json"),
            "train": train_config.model_dump(mode="json"),
            "arrays": data,
            "run_dir": str(run_dir),
            "directory": os.getcwd(),
            "threads": _threads(resources),
        },
        scaling_config=ScalingConfig(
            num_workers=workers,
            elastic_resize_monitor_interval_s=elastic.look_every_s if elastic else 0.0,
            use_gpu="GPU" in resources,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=str(run_dir),
            failure_config=FailureConfig(max_failures=train_config.max_failures),
            callbacks=list(callbacks),
        ),
    )
    with watched(lambda: (run_dir / STOP).exists()):
        outcome = trainer.fit().return_value
    if outcome == STOPPED:
        raise Stopped
    if outcome or (run_dir / FAULT).exists():  # only the result of rank 0 is returned
        raise InputError(outcome or (run_dir / FAULT).read_text(encoding="utf-8"))
    return run_dir


def _work(config: dict[str, Any]) -> str:
    """Train as one worker, in its own process.

    Returns:
        "" if the training finished, STOPPED if it was stopped, or the text of an InputError.
    """
    relax_gc()
    import torch
    from ray import train as ray_train

    from heartseg.cluster.stop_signal import StopPoller, load_for_all
    from heartseg.data.resident import Resident
    from heartseg.training.checkpoint import save_checkpoint
    from heartseg.training.journal import Journal
    from heartseg.training.loop import Epoch, fit
    from heartseg.training.machine import record_machine

    context = ray_train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    recipe = Recipe.model_validate(config["recipe"])
    train_config = Train.model_validate(config["train"])
    run_dir = Path(config["run_dir"])
    torch.set_num_threads(config["threads"])
    # Ray has changed the working directory. Paths of weights in a recipe are relative to it.
    with contextlib.suppress(OSError):
        os.chdir(config["directory"])
    arrays = ray.get(config["arrays"])
    data = {split: Resident.from_numpy(*parts) for split, parts in arrays.items()}
    journal = Journal(run_dir, data["val"], train_config.overlay_every, train_config.overlay_cases)
    poller = StopPoller(run_dir, rank, world_size)
    device = ray_train.torch.get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)  # NCCL sends objects through the current device
    if rank == 0:
        record_machine(run_dir, device, "ray", world_size)

    def report(epoch: Epoch) -> None:
        if epoch.state is not None:
            with poller.recording_faults():
                # First the journal: an epoch may be recorded twice, but never be missing.
                journal.write_epoch(epoch)
                save_checkpoint(run_dir, epoch.state)
        ray_train.report({"epoch": epoch.number, **epoch.metrics})

    def save(state: State) -> None:
        with poller.recording_faults():
            save_checkpoint(run_dir, state)

    def on_step(epoch: int, step: int, steps: int, loss: torch.Tensor) -> None:
        with poller.recording_faults():
            journal.write_step(epoch, step, steps, loss)

    try:
        fit(
            recipe,
            data["train"],
            data["val"],
            report=report,
            device=device,
            rank=rank,
            world_size=world_size,
            resume_from=load_for_all(run_dir, rank, world_size),
            device_memory_fraction=train_config.device_memory_fraction,
            clinical=train_config.clinical_metrics,
            on_step=on_step if rank == 0 else None,
            poll_stop=poller,
            save=save,
        )
    except Stopped:
        return poller.fault or STOPPED
    except (InputError, torch.OutOfMemoryError) as error:
        # Ray would treat an exception as a lost worker and repeat the training in vain.
        text = str(error) if isinstance(error, InputError) else OUT_OF_MEMORY
        with contextlib.suppress(OSError):
            (run_dir / FAULT).write_text(text, encoding="utf-8")
        return text
    return poller.fault


def shutdown() -> None:
    """Leave the cluster. A local cluster is shut down."""
    ray.shutdown()
