"""What a node says of itself, and what follows from it; knows of no engine."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from heartseg.checks.check import Check, Status
from heartseg.training.run_dir import code_digest

LIBRARIES = ("ray", "torch", "mlflow")
DISK_WARN, DISK_FAIL = 20e9, 2e9
"""Bytes free: checkpoints of a sweep take gigabytes; Ray spills objects to its folder."""
SKEW_WARN_S, SKEW_FAIL_S = 1.0, 30.0
"""MLflow orders points by the writers' clocks; signed requests to S3 fail at minutes."""
GPU_FREE_WARN = 0.8


@dataclass(frozen=True)
class Gpu:
    """A graphics card by NVML: bytes in all and free."""

    name: str
    total: int
    free: int


@dataclass(frozen=True)
class NodeReport:
    """What a node says of itself.

    Attributes:
        host: its name.
        time: its clock, seconds since 1970.
        python: its version.
        libraries: versions by name; "none" where it is not installed.
        code: digest of heartseg's code there.
        disks: bytes free by folder.
        gpus: the cards.
        ray_gpus: how many Ray may give away.
        auth_mode: RAY_AUTH_MODE of its processes.
        skew: seconds that its clock is ahead of the driver's.
        uncertainty: the skew may be off by so many seconds.
    """

    host: str
    time: float
    python: str
    libraries: dict[str, str]
    code: str
    disks: dict[str, float]
    gpus: list[Gpu] = field(default_factory=list)
    ray_gpus: float = 0.0
    auth_mode: str = ""
    skew: float = 0.0
    uncertainty: float = 0.0


def report(folders: Sequence[Path], ray_gpus: float = 0.0) -> NodeReport:
    """Look at the machine that this runs on.

    Args:
        folders: whose disks are of interest; absent ones are left out.
        ray_gpus: what Ray counts here.
    """
    return NodeReport(
        host=socket.gethostname(),
        time=time.time(),
        python=platform.python_version(),
        libraries={name: _version(name) for name in LIBRARIES},
        code=code_digest(),
        disks={str(p): float(shutil.disk_usage(p).free) for p in folders if p.exists()},
        gpus=_gpus(),
        ray_gpus=ray_gpus,
        auth_mode=os.environ.get("RAY_AUTH_MODE", ""),
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _gpus() -> list[Gpu]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver, no card
        return []
    gpus = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        name = pynvml.nvmlDeviceGetName(handle)
        gpus.append(Gpu(str(name), int(memory.total), int(memory.free)))
    return gpus


def check_node(node: NodeReport, driver: NodeReport) -> list[Check]:
    """Libraries and code against the driver's, GPUs, disks, clock."""
    return [
        _same_stack(node, driver),
        _gpu(node),
        *_disks(node),
        clock_check(node.host, node.skew, node.uncertainty),
        _token(node),
    ]


def _same_stack(node: NodeReport, driver: NodeReport) -> Check:
    other = {
        name: f"{there} (driver: {driver.libraries[name]})"
        for name, there in node.libraries.items()
        if there != driver.libraries[name]
    }
    if node.python.rpartition(".")[0] != driver.python.rpartition(".")[0]:
        other["python"] = f"{node.python} (driver: {driver.python})"
    if node.code != driver.code:
        other["heartseg"] = "another state of the code"
    seen = ", ".join(f"{name} {what}" for name, what in (other or node.libraries).items())
    mend = "run the same image, or the same clone and .venv (`make env`), on all nodes"
    status: Status = "fail" if other else "ok"
    return Check("versions", node.host, status, seen, mend if other else "")


def _gpu(node: NodeReport) -> Check:
    if not node.gpus and not node.ray_gpus:
        return Check("GPUs", node.host, "ok", "none: trainings use the CPUs")
    seen = ", ".join(
        f"{g.name} {g.free / 1e9:.0f} of {g.total / 1e9:.0f} GB free" for g in node.gpus
    )
    if len(node.gpus) != node.ray_gpus:
        seen = f"Ray counts {node.ray_gpus:g}, the driver shows {len(node.gpus)}: {seen or 'none'}"
        mend = "see `nvidia-smi` there; start Ray anew, or give --num-gpus to `ray start`"
        return Check(
            "GPUs", node.host, "fail" if len(node.gpus) < node.ray_gpus else "warn", seen, mend
        )
    if any(gpu.free < GPU_FREE_WARN * gpu.total for gpu in node.gpus):
        mend = "another process holds memory: see `nvidia-smi` there"
        return Check("GPUs", node.host, "warn", seen, mend)
    return Check("GPUs", node.host, "ok", seen)


def _disks(node: NodeReport) -> list[Check]:
    checks = []
    for folder, free in node.disks.items():
        status: Status = "fail" if free < DISK_FAIL else "warn" if free < DISK_WARN else "ok"
        mend = "" if status == "ok" else f"make room there: `du -xh {folder} | sort -h | tail`"
        checks.append(
            Check("disk", node.host, status, f"{free / 1e9:.1f} GB free at {folder}", mend)
        )
    return checks


def _token(node: NodeReport) -> Check:
    seen = f"RAY_AUTH_MODE: {node.auth_mode or 'not set'}"
    if node.auth_mode == "token":
        return Check("Ray token", node.host, "ok", seen)
    mend = "start Ray there with RAY_AUTH_MODE=token in its environment"
    return Check("Ray token", node.host, "fail", seen, mend)


def clock_check(where: str, skew: float, uncertainty: float) -> Check:
    """Whether a clock goes with the driver's.

    Args:
        where: whose clock.
        skew: seconds that it is ahead.
        uncertainty: in seconds; so much may be the measurement's.
    """
    off = max(0.0, abs(skew) - uncertainty)
    status: Status = "fail" if off > SKEW_FAIL_S else "warn" if off > SKEW_WARN_S else "ok"
    mend = "" if status == "ok" else "synchronise it: `timedatectl set-ntp true`"
    return Check(
        "clock", where, status, f"{skew:+.2f} ± {uncertainty:.2f} s from the driver's", mend
    )


def leave_mark(folder: Path, name: str) -> bool:
    """Write a file into the folder; False where the folder is not there.

    Raises:
        OSError: it cannot be written.
    """
    if not folder.is_dir():
        return False
    with open(folder / name, "w", encoding="utf-8") as stream:
        stream.write(name)
        os.fsync(stream.fileno())
    return True


def see_marks(folder: Path) -> list[str]:
    """Names of the files in the folder that hold what they should."""
    if not folder.is_dir():
        return []
    return sorted(p.name for p in folder.iterdir() if p.read_text(encoding="utf-8") == p.name)


def storage_check(
    where: str, folder: Path, wrote: bool | str, seen: Sequence[str], all_marks: Sequence[str]
) -> Check:
    """Whether a node writes to the shared folder and sees what the others wrote.

    Args:
        where: the node.
        folder: of the runs.
        wrote: whether the folder is there; a text says why it cannot be written.
        seen: from `see_marks`.
        all_marks: what all nodes wrote.
    """
    mend = (
        f"mount the same shared folder (NFS, a ReadWriteMany volume) at {folder} on every node, "
        "writable for the user that runs Ray"
    )
    if wrote is False:
        return Check("shared storage", where, "fail", f"{folder} is not there", mend)
    if wrote is not True:
        return Check("shared storage", where, "fail", f"{folder}: {wrote}", mend)
    missing = sorted(set(all_marks) - set(seen))
    if missing:
        found = f"{folder} is another folder there: what {', '.join(missing)} wrote is not in it"
        return Check("shared storage", where, "fail", found, mend)
    return Check("shared storage", where, "ok", f"{folder}: written, and seen what all wrote")
