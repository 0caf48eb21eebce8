"""The machine that a training ran on: what can change its result beside recipe, data and code."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

MACHINE = "machine.json"


def note_machine(run_dir: Path, device: torch.device | str, engine: str, workers: int) -> None:
    """Write the present machine to the run's folder, after those that it ran on before.

    Args:
        run_dir: folder of the run.
        device: that the training uses.
        engine: "ray" or "in-process".
        workers: processes that train together.
    """
    import torch  # not above: the tracker only reads

    known = _read(run_dir)
    present = _describe(torch.device(device), engine, workers)
    if not known or known[-1] != present:
        text = json.dumps([*known, present], indent=1)
        (run_dir / MACHINE).write_text(text, encoding="utf-8")


def machine_tags(run_dir: Path) -> dict[str, str]:
    """machine.device, .cpu, .threads and so on, of the machine that a run's folder tells of.

    Where a run went on elsewhere, both values stand there: "2 then 8".
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
        "vector_units": torch.backends.cpu.get_cpu_capability(),  # decides which kernels run
        "threads": str(torch.get_num_threads()),  # decides in which order sums are taken
        "workers": str(workers),
        "engine": engine,
        "cuda": str(torch.version.cuda) if gpu else "none",
        "cudnn": str(cudnn or "none"),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")  # Linux; elsewhere platform knows as much
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _read(run_dir: Path) -> list[dict[str, str]]:
    path = run_dir / MACHINE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
