"""The state of one machine, and the checks that follow from it. Independent of Ray."""

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
"""Free bytes: a sweep's checkpoints take gigabytes, and Ray spills objects to its folder."""
SKEW_WARN_S, SKEW_FAIL_S = 1.0, 30.0
"""MLflow orders points by the writers' clocks, and S3 refuses requests that are minutes off."""
GPU_FREE_WARN = 0.8


@dataclass(frozen=True)
class Gpu:
    """A GPU as reported by NVML, with its total and free memory in bytes."""

    name: str
    total: int
    free: int


@dataclass(frozen=True)
class NodeReport:
    """The state of a node.

    Attributes:
        host: Host name.
        time: Time of its clock in seconds since 1970.
        python: Version of Python.
        libraries: Version by name of library, or "none" if it is not installed.
        code: MD5 of heartseg's code.
        disks: Free bytes by folder.
        gpus: GPUs.
        ray_gpus: Number of GPUs that Ray manages.
        auth_mode: RAY_AUTH_MODE of its processes.
        skew: Seconds by which its clock is ahead of the driver's.
        uncertainty: Uncertainty of the skew in seconds.
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
    """Return the state of this machine.

    Args:
        folders: Folders whose free space is reported. Missing folders are skipped.
        ray_gpus: Number of GPUs that Ray manages on this machine.
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
    except pynvml.NVMLError:  # no driver, or no GPU
        return []
    gpus = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        name = pynvml.nvmlDeviceGetName(handle)
        gpus.append(Gpu(str(name), int(memory.total), int(memory.free)))
    return gpus


def check_node(node: NodeReport, driver: NodeReport) -> list[Check]:
    """Check versions and code against the driver's, GPUs, disks, clock and token."""
    return [
        _same_stack(node, driver),
        _gpu(node),
        *_disks(node),
        check_clock(node.host, node.skew, node.uncertainty),
        _token(node),
    ]


def _same_stack(node: NodeReport, driver: NodeReport) -> Check:
    other = {
        name: f"{version} (driver: {driver.libraries[name]})"
        for name, version in node.libraries.items()
        if version != driver.libraries[name]
    }
    if node.python.rpartition(".")[0] != driver.python.rpartition(".")[0]:
        other["python"] = f"{node.python} (driver: {driver.python})"
    if node.code != driver.code:
        other["heartseg"] = "differs from the driver's code"
    seen = ", ".join(f"{name} {text}" for name, text in (other or node.libraries).items())
    fix = "run the same image, or the same clone and .venv (`make env`), on all nodes"
    status: Status = "fail" if other else "ok"
    return Check("versions", node.host, status, seen, fix if other else "")


def _gpu(node: NodeReport) -> Check:
    if not node.gpus and not node.ray_gpus:
        return Check("GPUs", node.host, "ok", "none: training uses the CPUs")
    seen = ", ".join(
        f"{g.name} {g.free / 1e9:.0f} of {g.total / 1e9:.0f} GB free" for g in node.gpus
    )
    if len(node.gpus) != node.ray_gpus:
        seen = f"Ray counts {node.ray_gpus:g}, NVML finds {len(node.gpus)}: {seen or 'none'}"
        fix = "see `nvidia-smi` there; restart Ray, or pass --num-gpus to `ray start`"
        return Check(
            "GPUs", node.host, "fail" if len(node.gpus) < node.ray_gpus else "warn", seen, fix
        )
    if any(gpu.free < GPU_FREE_WARN * gpu.total for gpu in node.gpus):
        fix = "another process uses GPU memory: see `nvidia-smi` there"
        return Check("GPUs", node.host, "warn", seen, fix)
    return Check("GPUs", node.host, "ok", seen)


def _disks(node: NodeReport) -> list[Check]:
    checks = []
    for folder, free in node.disks.items():
        status: Status = "fail" if free < DISK_FAIL else "warn" if free < DISK_WARN else "ok"
        fix = "" if status == "ok" else f"free space there: `du -xh {folder} | sort -h | tail`"
        checks.append(
            Check("disk", node.host, status, f"{free / 1e9:.1f} GB free at {folder}", fix)
        )
    return checks


def _token(node: NodeReport) -> Check:
    seen = f"RAY_AUTH_MODE: {node.auth_mode or 'not set'}"
    if node.auth_mode == "token":
        return Check("Ray token", node.host, "ok", seen)
    fix = "start Ray there with RAY_AUTH_MODE=token in its environment"
    return Check("Ray token", node.host, "fail", seen, fix)


def check_clock(where: str, skew: float, uncertainty: float) -> Check:
    """Check a clock against the driver's.

    Args:
        where: Machine of the clock.
        skew: Seconds by which the clock is ahead.
        uncertainty: Uncertainty of the skew in seconds.
    """
    off = max(0.0, abs(skew) - uncertainty)
    status: Status = "fail" if off > SKEW_FAIL_S else "warn" if off > SKEW_WARN_S else "ok"
    fix = "" if status == "ok" else "synchronise it: `timedatectl set-ntp true`"
    return Check(
        "clock", where, status, f"{skew:+.2f} ± {uncertainty:.2f} s from the driver's", fix
    )


def write_marker(folder: Path, name: str) -> bool:
    """Write a file that contains its own name.

    Returns:
        Whether the folder exists.

    Raises:
        OSError: If the file cannot be written.
    """
    if not folder.is_dir():
        return False
    with open(folder / name, "w", encoding="utf-8") as stream:
        stream.write(name)
        os.fsync(stream.fileno())
    return True


def read_markers(folder: Path) -> list[str]:
    """Return the sorted names of the files in the folder that contain their own name."""
    if not folder.is_dir():
        return []
    return sorted(p.name for p in folder.iterdir() if p.read_text(encoding="utf-8") == p.name)


def check_storage(
    where: str, folder: Path, written: bool | str, found: Sequence[str], expected: Sequence[str]
) -> Check:
    """Check that a node can write to the shared folder and sees the files of the other nodes.

    Args:
        where: Name of the node.
        folder: Folder of the runs.
        written: True, False if the folder does not exist, or the reason why it is not writable.
        found: Result of `read_markers` on the node.
        expected: Markers that all nodes have written.
    """
    fix = (
        f"mount the same shared folder (NFS, a ReadWriteMany volume) at {folder} on every node, "
        "and make it writable for the user that runs Ray"
    )
    if written is False:
        return Check("shared storage", where, "fail", f"{folder} does not exist", fix)
    if written is not True:
        return Check("shared storage", where, "fail", f"{folder}: {written}", fix)
    missing = sorted(set(expected) - set(found))
    if missing:
        seen = f"{folder} is another folder: it lacks the files written by {', '.join(missing)}"
        return Check("shared storage", where, "fail", seen, fix)
    return Check("shared storage", where, "ok", f"{folder} is shared and writable")
