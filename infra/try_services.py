"""Run services of compose.yaml as processes of one container of the image, and train with them.

For infra/try-image. The lines, environments and healthchecks are those of compose.yaml. Only
Postgres and the object store are replaced, by SQLite and a folder, and Ray's head gets CPUs, for it
is the only node. Needs a clone in /workspace, whose params.yaml is overwritten, and /run/secrets.
Each step prints one line; exit code 1 if one fails.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

INFRA = Path("/opt/heartseg/infra")
WORKSPACE = Path("/workspace")
SECRETS = Path("/run/secrets")
PLACE = Path("/tmp") / f"services-{os.getuid()}"
REPLACED = {
    "postgresql+psycopg2://mlflow@postgres:5432/": f"sqlite:///{PLACE}/",
    "s3://mlflow/artifacts": f"{PLACE}/artifacts",
    f"{INFRA}/basic_auth.ini": f"{PLACE}/basic_auth.ini",
    "--num-cpus=0": "--num-cpus=2",
}
TINY: dict[str, Any] = {
    "pipeline": {"mmode": "mmode"},
    "phantoms.mmode": {"animals": 6, "windows_per_animal": 2, "window": 128, "seed": 1},
    "recipes.mmode.input_size": 48,
    "recipes.mmode.epochs": 2,
    "recipes.mmode.model.filters": 4,
}
IMPORT_ALL = """
import importlib, pkgutil, heartseg
for module in pkgutil.walk_packages(heartseg.__path__, "heartseg."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""
COMPILE = "import torch; assert torch.compile(lambda x: x * 2 + 1)(torch.ones(3)).sum() == 9"
ABSENT = f"! ls -d {INFRA}/../.git {INFRA}/.env {INFRA}/secrets {INFRA}/data 2>/dev/null | grep ."


def main() -> None:
    PLACE.mkdir()
    (PLACE / "basic_auth.ini").write_text(here((INFRA / "basic_auth.ini").read_text()))
    make_tiny(WORKSPACE / "params.yaml")
    services = yaml.safe_load((INFRA / "compose.yaml").read_text())["services"]
    user = {
        **environment(services["ray-head"]),
        "MLFLOW_TRACKING_USERNAME": "admin",
        "MLFLOW_TRACKING_PASSWORD": (SECRETS / "mlflow_admin_password").read_text(),
    }
    image = dict(os.environ)
    step("heartseg --help", ["heartseg", "--help"], image)
    step("no history, no secrets", ["sh", "-c", ABSENT], image)
    if os.getuid() == 1000:  # ssh refuses users without a name
        step("ssh", ["ssh", "-V"], image)
    step("dependencies", ["uv", "pip", "check"], image)
    # -P: those that are installed, not those of the clone
    step("all modules", [sys.executable, "-P", "-c", IMPORT_ALL], image)
    step("torch.compile", [sys.executable, "-c", COMPILE], image)
    step("git status", ["git", "status"], image)
    for name in ("mlflow", "ray-head"):
        start(name, services[name])
    step("dvc repro train@mmode", ["dvc", "repro", "train@mmode"], user)
    step("heartseg doctor", ["heartseg", "doctor"], user)


def here(text: str) -> str:
    """A value of compose.yaml as it is in this container; of ${NAME:-default} the default."""
    for there, local in REPLACED.items():
        text = text.replace(there, local)
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def environment(service: dict[str, Any]) -> dict[str, str]:
    return {**os.environ, **{k: here(v) for k, v in service["environment"].items()}}


def make_tiny(path: Path) -> None:
    params = yaml.safe_load(path.read_text())
    for key, value in TINY.items():
        *parents, last = key.split(".")
        section = params
        for parent in parents:
            section = section[parent]
        section[last] = value
    path.write_text(yaml.safe_dump(params, sort_keys=False))


def step(name: str, command: list[str], variables: dict[str, str]) -> None:
    """Run a command to its end; its output is shown only if it fails."""
    begin = time.monotonic()
    done = subprocess.run(
        command,
        cwd=WORKSPACE,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1800,
        check=False,
    )
    report(name, done.returncode == 0, begin, done.stdout)


def start(name: str, service: dict[str, Any]) -> None:
    """Start a service and wait until its healthcheck succeeds. It ends with the container."""
    begin, log, variables = time.monotonic(), PLACE / f"{name}.log", environment(service)
    line = [here(word) for word in [*service.get("entrypoint", []), *service["command"]]]
    with log.open("wb") as out:
        process = subprocess.Popen(line, cwd=WORKSPACE, env=variables, stdout=out, stderr=out)
    check = service["healthcheck"]["test"][1:]
    while subprocess.run(check, env=variables, capture_output=True, check=False).returncode:
        if process.poll() is not None or time.monotonic() - begin > 600:
            report(name, False, begin, log.read_text())
        time.sleep(1)
    report(f"{name} is healthy", True, begin)


def report(name: str, good: bool, begin: float, output: str = "") -> None:
    print(f"{'ok' if good else 'failed':8}{name} ({time.monotonic() - begin:.0f} s)", flush=True)
    if not good:
        print(output[-5000:], flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
