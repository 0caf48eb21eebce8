"""What `heartseg doctor` looks at on the nodes of a Ray cluster."""

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
"""Of Ray, as in pyproject.toml: the first that tells workers of a preemption."""
ANSWER_S = 60.0
"""A node that has not answered by then is taken for unreachable."""
SILENT = "see Ray's logs there (/tmp/ray/session_latest/logs); is heartseg installed?"
"""To mend a node that does not answer."""


class _Visitor:
    """An actor on a node."""

    def __init__(self) -> None:
        self._open: list[socket.socket] = []

    def report(self, folders: list[Path], gpus: float) -> node.NodeReport:
        return node.report(folders, gpus)

    def leave_mark(self, folder: Path, name: str) -> bool | str:
        try:
            return node.leave_mark(folder, name)
        except OSError as error:
            return one_line(error)

    def see_marks(self, folder: Path) -> list[str]:
        return node.see_marks(folder)

    def listen(self) -> int:
        """A free port of this node, open until the actor ends."""
        self._open.append(socket.create_server(("", 0)))
        return self._open[-1].getsockname()[1]

    def reach(self, doors: list[tuple[str, int]]) -> list[str]:
        """Which of these addresses and ports do not accept a connection."""
        shut = []
        for address, port in doors:
            try:
                socket.create_connection((address, port), timeout=5).close()
            except OSError as error:
                shut.append(f"{address}:{port} ({one_line(error)})")
        return shut


def check_nodes(runs: Path) -> list[Check]:
    """Look at each node of the cluster that this process has joined.

    Args:
        runs: the folder of the runs, which all nodes should share.
    """
    return attempt("Ray", "driver", _check_ray) + attempt("nodes", "cluster", lambda: _visit(runs))


def _check_ray() -> list[Check]:
    new_enough = tuple(int(part) for part in ray.__version__.split(".")[:2]) >= OLDEST
    mend = "" if new_enough else "install the locked versions: `make env`"
    checks = [Check("Ray", "driver", "ok" if new_enough else "fail", ray.__version__, mend)]
    checks += attempt("State API", "head", _check_state_api)
    return checks


def _check_state_api() -> list[Check]:
    from ray.util.state import list_nodes

    try:
        address = ray.get_runtime_context().gcs_address  # several clusters may run here
        listed = [there for there in list_nodes(address, timeout=20) if there.state == "ALIVE"]
    except Exception as error:  # requests', Ray's
        mend = "start the head with its dashboard (`ray start --head --include-dashboard=true`)"
        return [Check("State API", "head", "fail", one_line(error), mend)]
    return [Check("State API", "head", "ok", f"lists {len(listed)} node(s)"), _check_token()]


def _check_token() -> Check:
    """Ask the dashboard without a token; it should refuse."""
    mend = (
        "whoever reaches these ports can run code: `ray get-auth-token --generate`, copy "
        "~/.ray/auth_token to every node, and start Ray with RAY_AUTH_MODE=token"
    )
    address = ray._private.worker.get_dashboard_url()
    try:
        with urllib.request.urlopen(f"http://{address}/nodes?view=summary", timeout=10):
            return Check("Ray token", "head", "fail", "the dashboard answers without a token", mend)
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return Check("Ray token", "head", "ok", "the dashboard refuses who has no token")
        return Check("Ray token", "head", "warn", f"the dashboard answers {error.code}", mend)
    except OSError as error:
        seen = f"the dashboard at {address} does not answer: {one_line(error)}"
        return Check("Ray token", "head", "warn", seen, "open the head's port 8265 for the driver")


def _visit(runs: Path) -> list[Check]:
    there = {entry["NodeID"]: entry for entry in ray.nodes() if entry["Alive"]}
    visitors = {
        key: ray.remote(_Visitor)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(key, soft=False))
        .remote()
        for key in there
    }
    checks, present = [], {}
    own = node.report([runs if runs.exists() else runs.parent])
    for key, visitor in visitors.items():
        entry = there[key]
        gpus = entry["Resources"].get("GPU", 0.0)
        folders = [runs if runs.exists() else runs.parent, Path("/tmp/ray")]
        try:
            _ask(visitor.report, folders, gpus)  # its process starts and imports
            before = time.time()
            told: node.NodeReport = _ask(visitor.report, folders, gpus)
            after = time.time()
        except Exception as error:
            checks.append(Check("node", entry["NodeName"], "fail", _cause(error), SILENT))
            continue
        skew, uncertainty = told.time - (before + after) / 2, (after - before) / 2
        name = _name(entry, list(there.values()))
        told = replace(told, host=name, skew=skew, uncertainty=uncertainty)
        present[key] = name
        checks += node.check_node(told, own)
    named = {name: visitors[key] for key, name in present.items()}
    checks += _check_storage(runs, named)
    checks += _check_ports(
        named, {name: there[key]["NodeManagerAddress"] for key, name in present.items()}
    )
    return checks


def _ask(method: Any, *arguments: Any) -> Any:
    return ray.get(method.remote(*arguments), timeout=ANSWER_S)


def _answer(method: Any, *arguments: Any) -> tuple[Any, str]:
    """What a node answers, or None and why it does not: one node's fault is not the others'."""
    try:
        return _ask(method, *arguments), ""
    except Exception as error:  # what was raised there, GetTimeoutError, RayActorError
        return None, _cause(error)


def _cause(error: Exception) -> str:
    """The last line: Ray puts the trace of the other process before it."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _name(entry: dict[str, Any], entries: list[dict[str, Any]]) -> str:
    """The host's name; with part of the node's id where two nodes share a machine."""
    host = entry["NodeManagerHostname"]
    alone = sum(other["NodeManagerHostname"] == host for other in entries) == 1
    return host if alone else f"{host}/{entry['NodeID'][:6]}"


def _check_storage(runs: Path, visitors: dict[str, Any]) -> list[Check]:
    is_new = not runs.exists()
    folder = runs / f".doctor-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        mend = f"make {runs} writable for this user"
        return [Check("shared storage", "driver", "fail", one_line(error), mend)]
    try:
        node.leave_mark(folder, "driver")
        marks = {name: f"node {number}" for number, name in enumerate(visitors)}
        wrote = {}
        for name, visitor in visitors.items():
            done, cause = _answer(visitor.leave_mark, folder, marks[name])
            wrote[name] = cause or done
        all_marks = ["driver", *(marks[name] for name in visitors if wrote[name] is True)]
        checks = []
        for name, visitor in visitors.items():
            there = wrote[name] is True
            seen, cause = _answer(visitor.see_marks, folder) if there else ([], "")
            checks.append(node.storage_check(name, runs, cause or wrote[name], seen, all_marks))
        return checks
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if is_new:
            with contextlib.suppress(OSError):
                runs.rmdir()


def _check_ports(visitors: dict[str, Any], addresses: dict[str, str]) -> list[Check]:
    """Workers of one training talk to each other on ports that the system chooses."""
    if len(visitors) < 2:
        return []
    checks, doors = [], {}
    for name, visitor in visitors.items():
        port, cause = _answer(visitor.listen)
        if cause:
            checks.append(Check("ports", name, "fail", cause, SILENT))
        else:
            doors[name] = (addresses[name], port)
    for name in doors:
        others = [door for other, door in doors.items() if other != name]
        shut, cause = _answer(visitors[name].reach, others)
        if cause:
            checks.append(Check("ports", name, "fail", cause, SILENT))
            continue
        seen = f"does not reach {', '.join(shut)}" if shut else "reaches all other nodes"
        mend = "let the nodes talk to each other on all TCP ports (firewall, security group)"
        checks.append(Check("ports", name, "fail" if shut else "ok", seen, mend if shut else ""))
    return checks
