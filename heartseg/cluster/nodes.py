"""The checks of `heartseg doctor` on the nodes of a Ray cluster."""

from __future__ import annotations

import contextlib
import shutil
import socket
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from heartseg.checks import node
from heartseg.checks.check import Check, attempt
from heartseg.errors import one_line

OLDEST = (2, 58)
"""Oldest version of Ray, as in pyproject.toml: the first that notifies workers of preemption."""
TIMEOUT_S = 60.0
"""Time after which a node that has not answered is considered unreachable."""
FIX_UNREACHABLE = (
    "see Ray's logs on the node (/tmp/ray/session_latest/logs), and check that heartseg is "
    "installed there"
)


class _Probe:
    """An actor that checks the node on which it runs."""

    def __init__(self) -> None:
        self._open: list[socket.socket] = []

    def report(self, folders: list[Path], gpus: float) -> node.NodeReport:
        return node.report(folders, gpus)

    def write_marker(self, folder: Path, name: str) -> bool | str:
        try:
            return node.write_marker(folder, name)
        except OSError as error:
            return one_line(error)

    def read_markers(self, folder: Path) -> list[str]:
        return node.read_markers(folder)

    def listen(self) -> int:
        """Return a port of this node that stays open until the actor ends."""
        self._open.append(socket.create_server(("", 0)))
        return self._open[-1].getsockname()[1]

    def find_closed(self, addresses: list[tuple[str, int]]) -> list[str]:
        """Return those of the (host, port) pairs that do not accept a connection, with reasons."""
        closed = []
        for host, port in addresses:
            try:
                socket.create_connection((host, port), timeout=5).close()
            except OSError as error:
                closed.append(f"{host}:{port} ({one_line(error)})")
        return closed


def check_nodes(runs: Path) -> list[Check]:
    """Check each node of the cluster that this process has joined.

    Args:
        runs: Folder of the runs, which all nodes should share.
    """
    return attempt("Ray", "driver", _check_ray) + attempt(
        "nodes", "cluster", lambda: _check_all_nodes(runs)
    )


def _check_ray() -> list[Check]:
    new_enough = tuple(int(part) for part in ray.__version__.split(".")[:2]) >= OLDEST
    fix = "" if new_enough else "install the locked versions: `make env`"
    checks = [Check("Ray", "driver", "ok" if new_enough else "fail", ray.__version__, fix)]
    checks += attempt("State API", "head", _check_state_api)
    return checks


def _check_state_api() -> list[Check]:
    from ray.util.state import list_nodes

    try:
        address = ray.get_runtime_context().gcs_address  # this machine may run several clusters
        alive = [found for found in list_nodes(address, timeout=20) if found.state == "ALIVE"]
    except Exception as error:  # of requests or Ray
        fix = "start the head with its dashboard (`ray start --head --include-dashboard=true`)"
        return [Check("State API", "head", "fail", one_line(error), fix)]
    return [Check("State API", "head", "ok", f"lists {len(alive)} node(s)"), _check_token()]


def _check_token() -> Check:
    """Check that the dashboard refuses a request without a token."""
    fix = (
        "whoever reaches these ports can run code: `ray get-auth-token --generate`, copy "
        "~/.ray/auth_token to every node, and start Ray with RAY_AUTH_MODE=token"
    )
    address = ray._private.worker.get_dashboard_url()
    try:
        with urllib.request.urlopen(f"http://{address}/nodes?view=summary", timeout=10):
            return Check("Ray token", "head", "fail", "the dashboard answers without a token", fix)
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            seen = "the dashboard refuses requests without a token"
            return Check("Ray token", "head", "ok", seen)
        return Check("Ray token", "head", "warn", f"the dashboard answers {error.code}", fix)
    except OSError as error:
        seen = f"the dashboard at {address} does not answer: {one_line(error)}"
        return Check("Ray token", "head", "warn", seen, "open the head's port 8265 for the driver")


def _check_all_nodes(runs: Path) -> list[Check]:
    entries = {entry["NodeID"]: entry for entry in ray.nodes() if entry["Alive"]}
    probes = {
        key: ray.remote(_Probe)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(key, soft=False))
        .remote()
        for key in entries
    }
    checks, names = [], {}
    existing = runs if runs.exists() else runs.parent
    driver = node.report([existing])
    for key, probe in probes.items():
        entry = entries[key]
        gpus = entry["Resources"].get("GPU", 0.0)
        folders = [existing, Path("/tmp/ray")]
        try:
            _call(probe.report, folders, gpus)  # starts the process and imports the modules
            before = time.time()
            report: node.NodeReport = _call(probe.report, folders, gpus)
            after = time.time()
        except Exception as error:
            checks.append(Check("node", entry["NodeName"], "fail", _cause(error), FIX_UNREACHABLE))
            continue
        skew, uncertainty = report.time - (before + after) / 2, (after - before) / 2
        names[key] = _name(entry, list(entries.values()))
        report = replace(report, host=names[key], skew=skew, uncertainty=uncertainty)
        checks += node.check_node(report, driver)
    reachable = {name: probes[key] for key, name in names.items()}
    addresses = {name: entries[key]["NodeManagerAddress"] for key, name in names.items()}
    return [*checks, *_check_storage(runs, reachable), *_check_ports(reachable, addresses)]


def _call(method: Any, *arguments: Any) -> Any:
    return ray.get(method.remote(*arguments), timeout=TIMEOUT_S)


def _try_call(method: Any, *arguments: Any) -> tuple[Any, str]:
    """Call a method of a probe so that the failure of one node does not affect the others.

    Returns:
        The result and "", or None and the reason of the failure.
    """
    try:
        return _call(method, *arguments), ""
    except Exception as error:  # of the probe, GetTimeoutError or RayActorError
        return None, _cause(error)


def _cause(error: Exception) -> str:
    """Return the last line of an error: Ray puts the other process's traceback before it."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _name(entry: dict[str, Any], entries: list[dict[str, Any]]) -> str:
    """Return the host name, with a part of the node's id if several nodes run on this host."""
    host = entry["NodeManagerHostname"]
    alone = sum(other["NodeManagerHostname"] == host for other in entries) == 1
    return host if alone else f"{host}/{entry['NodeID'][:6]}"


def _check_storage(runs: Path, probes: dict[str, Any]) -> list[Check]:
    is_new = not runs.exists()
    folder = runs / f".doctor-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        fix = f"make {runs} writable for this user"
        return [Check("shared storage", "driver", "fail", one_line(error), fix)]
    try:
        node.write_marker(folder, "driver")
        markers = {name: f"node {number}" for number, name in enumerate(probes)}
        written = {}
        for name, probe in probes.items():
            done, cause = _try_call(probe.write_marker, folder, markers[name])
            written[name] = cause or done
        expected = ["driver", *(markers[name] for name in probes if written[name] is True)]
        checks = []
        for name, probe in probes.items():
            found: list[str] = []
            cause = ""
            if written[name] is True:
                found, cause = _try_call(probe.read_markers, folder)
            checks.append(node.check_storage(name, runs, cause or written[name], found, expected))
        return checks
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if is_new:
            with contextlib.suppress(OSError):
                runs.rmdir()


def _check_ports(probes: dict[str, Any], addresses: dict[str, str]) -> list[Check]:
    """Check that the nodes reach each other.

    The workers of a training communicate on ports that the operating system chooses.
    """
    if len(probes) < 2:
        return []
    checks, listening = [], {}
    for name, probe in probes.items():
        port, cause = _try_call(probe.listen)
        if cause:
            checks.append(Check("ports", name, "fail", cause, FIX_UNREACHABLE))
        else:
            listening[name] = (addresses[name], port)
    for name in listening:
        others = [address for other, address in listening.items() if other != name]
        closed, cause = _try_call(probes[name].find_closed, others)
        if cause:
            checks.append(Check("ports", name, "fail", cause, FIX_UNREACHABLE))
        elif closed:
            seen = f"does not reach {', '.join(closed)}"
            fix = "open all TCP ports between the nodes (firewall, security group)"
            checks.append(Check("ports", name, "fail", seen, fix))
        else:
            checks.append(Check("ports", name, "ok", "reaches all other nodes"))
    return checks
