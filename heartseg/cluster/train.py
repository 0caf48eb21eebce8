"""`fit` on the workers of a Ray cluster: data-parallel training with Ray Train (V2 API)."""

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
"""Signals that a scheduler or a closed terminal sends, often to a command and all its children."""
ADDRESS = re.compile(r"(ray://)?(\[[0-9A-Fa-f:]+\]|[\w.-]+):(?P<port>\d{1,5})")
OUT_OF_MEMORY = "the GPU's memory is too small for this recipe; lower batch_size or input_size"


def start_ray(log: Path, *, dashboard: bool = False) -> None:
    """Join the cluster at RAY_ADDRESS, or start a local one; Ray's messages go to `log`.

    Args:
        log: file.
        dashboard: start a local one with the State API, by which Ray frees what the workers
            of a stopped trial held.

    The processes of a local one ignore the signals in `ENDING`: the command hears them, lets its
    workers write a checkpoint, and then ends Ray itself.

    Raises:
        InputError: RAY_ADDRESS is no address or no cluster answers there; or no Ray can be
            started here.
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
    # The controller looks for finished workers this often; its own 2 s are 2 s of every run.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")
    # A node that was lost is counted on for up to 20 s more; then there is room for fewer workers.
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "20")
    # Ray gives its own processes 30 s to come up, too little on a machine that is busy otherwise.
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "120")
    local: dict[str, Any] = {}
    if address == "local":
        # Preemption notices and the dashboard's pages concern clusters; each would be another
        # process to start before the first step.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        local = {"include_dashboard": dashboard}
    at_sigterm = signal.getsignal(signal.SIGTERM)
    # Inherited by all processes of a local Ray; so is Ray's own block of SIGINT.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        _knock(address)  # Ray itself would wait for minutes
        ray.init(address=address, log_to_driver=False, configure_logging=False, **local)
    except OSError as error:  # ConnectionError among them
        raise InputError(_no_ray(address, error)) from None
    finally:
        if callable(at_sigterm):  # Ray puts its own in the place of the command's
            signal.signal(signal.SIGTERM, at_sigterm)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _check_address(address: str) -> None:
    found = ADDRESS.fullmatch(address)
    if address in ("local", "auto") or (found and 0 < int(found["port"]) < 65536):
        return
    raise InputError(
        f"RAY_ADDRESS={address} is no address of a Ray cluster; give HOST:PORT as `ray start "
        "--head` prints it (the port is usually 6379), or auto for a cluster on this machine, or "
        "unset it to start Ray for this command only"
    )


def _no_ray(address: str, error: OSError) -> str:
    if "AF_UNIX path length" in str(error):
        name = "RAY_TMPDIR" if os.environ.get("RAY_TMPDIR") else "TMPDIR"
        return (
            f"{name}={os.environ.get(name)} is too long: Ray keeps its sockets below it, and the "
            "system allows 107 bytes for a socket's path. Set RAY_TMPDIR to a short folder, "
            "for example /tmp"
        )
    if address == "local":
        return f"Ray cannot start on this machine: {error}. Mend that, or use --in-process"
    return (
        f"no Ray cluster answers at RAY_ADDRESS={address}: {error}; "
        "start one with `ray start --head`, or unset RAY_ADDRESS to train on this machine; one "
        "with a token refuses who has another or none (RAY_AUTH_TOKEN_PATH)"
    )


def _knock(address: str) -> None:
    """Raise OSError where HOST:PORT does not accept a connection."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def count_workers(train: Train, recipe: Recipe) -> int | tuple[int, int]:
    """The configured number of workers, or the least and the greatest.

    auto is one per GPU that the cluster has, or as many of them as can share the batch
    equally; without a GPU it is one.

    Raises:
        InputError: the cluster has fewer GPUs, or the workers cannot share the batch equally.
    """
    if isinstance(train.workers, Elastic):
        for number in range(train.workers.min, train.workers.max + 1):
            recipe.worker_batch(number)
        return train.workers.min, train.workers.max
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


def _threads(resources: dict[str, float]) -> int:
    """Of a worker: one per CPU that it takes, or fewer where OMP_NUM_THREADS says so."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    cpus = max(1, math.floor(resources.get("CPU", 1)))
    return min(cpus, int(wanted)) if wanted.isdigit() and int(wanted) else cpus


def train_on_cluster(
    recipe: Recipe, train: Train, data: dict[str, Resident], run_dir: Path
) -> Path:
    """Train on all of the cluster; see `train_on_ray`."""
    workers = count_workers(train, recipe)  # an impossible number is refused before any starts
    resources = share_of_node(workers if isinstance(workers, int) else workers[1])
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
    workers: int | tuple[int, int],
    resources: dict[str, float],
    callbacks: Sequence[UserCallback] = (),
) -> Path:
    """Train with some workers; a run that was cut off goes on from its last checkpoint.

    Args:
        recipe: what to train.
        train: how to train.
        data: from `put`, "train" and "val".
        run_dir: folder of this run; on several nodes a folder that all of them see.
        workers: processes that train together; or the least and the greatest number of them.
        resources: what each of them takes of the cluster.
        callbacks: of Ray Train's controller.

    Returns:
        run_dir, with the last checkpoint.

    Raises:
        InputError: recipe and cluster do not fit together, or a worker found a fault of the
            user's.
        Stopped: the run was told to end.
        KeyboardInterrupt: Ctrl-C, at once.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    class Trainer(TorchTrainer):
        def _register_sigint_handler(self, controller: Any) -> None:
            """Leave Ctrl-C to the command: Ray's own handler ends it without a word."""

    if (run_dir / STOP).exists():
        raise Stopped  # while Ray started
    (run_dir / FAULT).unlink(missing_ok=True)
    look_every_s = train.workers.look_every_s if isinstance(train.workers, Elastic) else 0.0
    trainer = Trainer(
        _work,
        train_loop_config={
            "recipe": recipe.model_dump(mode="json"),
            "train": train.model_dump(mode="json"),
            "arrays": data,
            "run_dir": str(run_dir),
            "directory": os.getcwd(),
            "threads": _threads(resources),
        },
        scaling_config=ScalingConfig(
            num_workers=workers,
            elastic_resize_monitor_interval_s=look_every_s,
            use_gpu="GPU" in resources,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=str(run_dir),
            failure_config=FailureConfig(max_failures=train.max_failures),
            callbacks=list(callbacks),
        ),
    )
    with watched(lambda: (run_dir / STOP).exists()):
        outcome = trainer.fit().return_value
    if outcome == STOPPED:
        raise Stopped
    if outcome or (run_dir / FAULT).exists():  # the latter of another rank than 0
        raise InputError(outcome or (run_dir / FAULT).read_text(encoding="utf-8"))
    return run_dir


def _work(config: dict[str, Any]) -> str:
    """One worker's part, in a process of its own; "", STOPPED, or a fault of the user's."""
    relax_gc()
    import torch
    from ray import train as ray_train

    from heartseg.cluster.stop_signal import Asking, load_for_all
    from heartseg.data.resident import Resident
    from heartseg.training.checkpoint import save_checkpoint
    from heartseg.training.journal import Journal
    from heartseg.training.loop import Epoch, fit
    from heartseg.training.machine import record_machine

    context = ray_train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    recipe = Recipe.model_validate(config["recipe"])
    how = Train.model_validate(config["train"])
    run_dir = Path(config["run_dir"])
    torch.set_num_threads(config["threads"])
    with contextlib.suppress(OSError):  # Ray changed it; a recipe's weights may be relative to it
        os.chdir(config["directory"])
    arrays = ray.get(config["arrays"])
    data = {split: Resident.from_numpy(*parts) for split, parts in arrays.items()}
    journal = Journal(run_dir, data["val"], how.overlay_every, how.overlay_cases)
    asking = Asking(run_dir, rank, world_size)
    device = ray_train.torch.get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)  # objects travel between the workers through this one
    if rank == 0:
        record_machine(run_dir, device, "ray", world_size)

    def report(epoch: Epoch) -> None:
        if epoch.state is not None:
            with asking.noting_faults():
                journal.write_epoch(epoch)  # before the checkpoint: told twice rather than never
                save_checkpoint(run_dir, epoch.state)
        ray_train.report({"epoch": epoch.number, **epoch.metrics})

    def save(state: State) -> None:
        with asking.noting_faults():
            save_checkpoint(run_dir, state)

    def on_step(epoch: int, step: int, steps: int, loss: torch.Tensor) -> None:
        with asking.noting_faults():
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
            device_memory_fraction=how.device_memory_fraction,
            clinical=how.clinical_metrics,
            on_step=on_step if rank == 0 else None,
            ask=asking,
            save=save,
        )
    except Stopped:
        return asking.fault or STOPPED
    except (InputError, torch.OutOfMemoryError) as error:
        # Raised, it would count as a lost worker and be tried again, to end the same.
        text = str(error) if isinstance(error, InputError) else OUT_OF_MEMORY
        with contextlib.suppress(OSError):
            (run_dir / FAULT).write_text(text, encoding="utf-8")
        return text
    return asking.fault


def shutdown() -> None:
    """Leave the cluster; a local one ends."""
    ray.shutdown()
