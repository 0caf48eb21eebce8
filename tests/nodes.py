"""Machines for tests on several nodes: network namespaces, or processes where those are forbidden.

A namespace has an address of its own and one link, to a switch that is a namespace too; so nothing
of it touches this machine's network. It also sees the files of its own: the repository's folder
holds there nothing but runs/, which stands for the shared storage.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.clones import BIN, environment
from tests.examples import ROOT
from tests.processes import wait_until
from tests.tracking.stores import free_port

HEAD, TRACKING = 1, 9
PORT = 6379
# A node that does not answer is given up after about 10 s; Ray's own values make it 30 s.
PATIENCE = {
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "2",
}


DRAIN = """
import subprocess, sys, ray
address, machine, seconds = sys.argv[1:]
ray.init(address, log_to_driver=False, configure_logging=False)
(node,) = [n["NodeID"] for n in ray.nodes() if n["Alive"] and machine in n["Resources"]]
notice = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
command = ["ray", "drain-node", "--address", address, "--node-id", node, *notice]
subprocess.run([*command, "--deadline-remaining-seconds", seconds], check=True)
"""


def namespaces_permitted() -> bool:
    """Whether this process may make network namespaces and mount in them.

    HEARTSEG_TEST_NODES=processes says no, to try the other way.
    """
    if os.environ.get("HEARTSEG_TEST_NODES") == "processes":
        return False
    name = f"hs{os.getpid()}try"
    try:
        subprocess.run(["ip", "netns", "add", name], check=True, capture_output=True)
        script = "mount -t tmpfs none /mnt && ip link add type veth"
        subprocess.run(
            ["ip", "netns", "exec", name, "sh", "-c", script], check=True, capture_output=True
        )
        return True
    except (OSError, subprocess.CalledProcessError):
        return False
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


class Nodes:
    """A head without CPUs of its own, where the driver runs, and nodes of one CPU each.

    Args:
        place: repository of the driver.
        apart: in namespaces; otherwise all on this machine's loopback.
    """

    def __init__(self, place: Path, apart: bool):
        self.place = place
        self.apart = apart
        self.folder = Path(tempfile.mkdtemp(prefix="hs"))  # short: Ray's sockets lie in it
        self.prefix = f"hs{os.getpid()}"
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        (place / "runs").mkdir(exist_ok=True)
        self.port = PORT if apart else free_port()
        self.tracking_port = free_port()

    def add_switch(self) -> None:
        """What the machines' links go to."""
        if self.apart:
            self._ip("netns", "add", self._name("sw"))
            self._inside("sw", "ip", "link", "add", "name", "hub", "type", "bridge")
            self._inside("sw", "ip", "link", "set", "hub", "up")

    def host(self, number: int) -> str:
        return f"10.77.0.{number}" if self.apart else "127.0.0.1"

    @property
    def address(self) -> str:
        return f"{self.host(HEAD)}:{self.port}"

    def add_machine(self, number: int) -> None:
        """A namespace with a link to the switch."""
        if not self.apart:
            return
        self._ip("netns", "add", self._name(number))
        port = f"p{number}"
        self._inside("sw", "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0")
        self._inside("sw", "ip", "link", "set", "eth0", "netns", self._name(number))
        self._inside("sw", "ip", "link", "set", port, "master", "hub", "up")
        self._inside(number, "ip", "addr", "add", f"{self.host(number)}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            self._inside(number, "ip", "link", "set", device, "up")

    def start_ray(self, number: int) -> None:
        """`ray start` on a machine."""
        if number == HEAD:
            where = ["--head", f"--port={self.port}", "--num-cpus=0", "--include-dashboard=false",
                     f"--temp-dir={self.folder}/ray", "--disable-usage-stats"]  # fmt: skip
        else:
            own = json.dumps({f"machine{number}": 1})  # by which `drain` knows it
            where = [f"--address={self.address}", "--num-cpus=1", f"--resources={own}"]
        command = [str(BIN / "ray"), "start", "--block", f"--node-ip-address={self.host(number)}",
                   "--object-store-memory=100000000", *where]  # fmt: skip
        log = self.folder / f"node{number}.log"
        log.unlink(missing_ok=True)
        self.processes[number] = self.start(number, command, log, PATIENCE, hidden=True)

    def await_ray(self, *numbers: int) -> None:
        """Until Ray runs on these machines."""
        for number in numbers:
            wait_until(lambda number=number: self._runs(number), f"Ray on machine {number}")

    def _runs(self, number: int) -> bool:
        if self.processes[number].poll() is not None:
            self.start_ray(number)  # Ray gives itself 30 s, too little on a busy machine
        return "Ray runtime started" in (self.folder / f"node{number}.log").read_text()

    def start(
        self,
        number: int,
        command: list[str],
        log: Path,
        extra: dict[str, str] | None = None,
        hidden: bool = False,
    ) -> subprocess.Popen[bytes]:
        """A process on a machine; `hidden`: without the files of the repository."""
        if self.apart and hidden and number != HEAD:
            own, hold = self.folder / f"own{number}", self.folder / f"hold{number}"
            for path in (own, hold, self.folder / "ray"):
                path.mkdir(exist_ok=True)
            script = (
                f"mount --bind {self.place}/runs {hold} && mount -t tmpfs none {self.place} && "
                f"mkdir {self.place}/runs && mount --bind {hold} {self.place}/runs && "
                f'mount --bind {own} {self.folder}/ray && cd {own} && exec "$@"'
            )
            command = ["sh", "-c", script, "sh", *command]
        if self.apart:
            command = ["ip", "netns", "exec", self._name(number), *command]
        own_environment = environment(self.place) | {
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.folder),  # without an auth token
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "eth0" if self.apart else "lo",
        }
        with open(log, "ab") as stream:
            return subprocess.Popen(
                command,
                cwd=self.place,
                env=own_environment | (extra or {}),
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )

    def drive(self, *arguments: str, log: Path, **extra: str) -> subprocess.Popen[bytes]:
        """`heartseg` on the head."""
        command = [sys.executable, "-m", "heartseg", *arguments]
        return self.start(HEAD, command, log, {"RAY_ADDRESS": self.address} | extra)

    def start_tracking(self) -> None:
        """An MLflow server on a machine of its own."""
        self.add_machine(TRACKING)
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host",
                   self.host(TRACKING), "--port", str(self.tracking_port), "--allowed-hosts", "*",
                   "--backend-store-uri", self.database, "--artifacts-destination",
                   str(self.folder / "artifacts")]  # fmt: skip
        log, extra = self.folder / "tracking.log", {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self.processes[TRACKING] = self.start(TRACKING, command, log, extra)

    def await_tracking(self) -> str:
        """Until the MLflow server runs; its URI."""
        log = self.folder / "tracking.log"
        wait_until(lambda: "startup complete" in log.read_text(), "MLflow's server")
        return f"http://{self.host(TRACKING)}:{self.tracking_port}"

    @property
    def database(self) -> str:
        """Of the MLflow server, to be read where its address cannot be reached."""
        return f"sqlite:///{self.folder}/mlflow.db"

    def drain(self, number: int, seconds: int) -> None:
        """Tell Ray, as a notice handler does, that a machine will be taken away."""
        log = self.folder / "drain.log"
        command = [sys.executable, "-c", DRAIN, self.address, f"machine{number}", str(seconds)]
        assert self.start(HEAD, command, log).wait(60) == 0, log.read_text()

    def cut_link(self, number: int) -> None:
        self._inside("sw", "ip", "link", "set", f"p{number}", "down")

    def mend_link(self, number: int) -> None:
        self._inside("sw", "ip", "link", "set", f"p{number}", "up")

    def kill(self, number: int) -> None:
        """All processes of a machine, at once and without a word."""
        if self.apart:
            listed = subprocess.run(
                ["ip", "netns", "pids", self._name(number)],
                capture_output=True,
                text=True,
                check=True,
            )
            for pid in listed.stdout.split():
                _kill(int(pid))
        elif number in self.processes:
            import psutil

            top = self.processes[number]
            if top.poll() is None:
                for process in [*psutil.Process(top.pid).children(recursive=True), top]:
                    _kill(process.pid)
        if (process := self.processes.pop(number, None)) is not None:
            process.wait()

    def close(self) -> None:
        """Nothing is left: no process, namespace, link or file."""
        for number in sorted(self.processes, reverse=True):
            self.kill(number)
        if self.apart:
            listed = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True)
            for name in listed.stdout.split():
                if name.startswith(f"{self.prefix}-"):
                    pids = subprocess.run(
                        ["ip", "netns", "pids", name], capture_output=True, text=True, check=True
                    )
                    for pid in pids.stdout.split():
                        _kill(int(pid))
                    self._ip("netns", "del", name)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _name(self, number: int | str) -> str:
        return f"{self.prefix}-{number}"

    def _inside(self, number: int | str, *command: str) -> None:
        self._ip("netns", "exec", self._name(number), *command)

    def _ip(self, *arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
