"""Description of the machine of a training, which can affect the rounding of its result."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

MACHINE = "machine.json"


def record_machine(run_dir: Path, device: torch.device | str, engine: str, workers: int) -> None:
    """Append the current machine to machine.json in the run's folder, unless it is the last entry.

    Args:
        run_dir: Folder of the run.
        device: Device of the training.
        engine: "ray" or "in-process".
        workers: Number of processes that train together.
    """
    import torch  # imported here because readers of machine.json do not need it

    machines = _read(run_dir)
    current = _describe(torch.device(device), engine, workers)
    if not machines or machines[-1] != current:
        text = json.dumps([*machines, current], indent=1)
        (run_dir / MACHINE).write_text(text, encoding="utf-8")


def machine_tags(run_dir: Path) -> dict[str, str]:
    """Return tags such as machine.device, machine.cpu and machine.threads of a run.

    If a run was resumed on another machine, a tag contains both values: "2 then 8".
    """
    machines = _read(run_dir)
    return {
        f"machine.{key}": " then ".join(dict.fromkeys(machine[key] for machine in machines))
        for key in (machines[0] if machines else ())
    }


def _describe(device: torch.device, engine: str, workers: int) -> dict[str, str]:
    import torch

    gpu = device.type == "cuda"
    cudnn: Any = torch.backends.cudnn.version() if gpu else None
    return {
        "device": torch.cuda.get_device_name(device) if gpu else device.type,
        "cpu": _cpu_name(),
        "vector_units": torch.backends.cpu.get_cpu_capability(),  # determines the kernels
        "threads": str(torch.get_num_threads()),  # determines the order of summation
        "workers": str(workers),
        "engine": engine,
        "cuda": str(torch.version.cuda) if gpu else "none",
        "cudnn": str(cudnn or "none"),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")  # exists on Linux only
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _read(run_dir: Path) -> list[dict[str, str]]:
    path = run_dir / MACHINE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
