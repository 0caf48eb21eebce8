"""A node that does not answer or raises is one failed check and does not affect the others."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import ray

from heartseg.cluster import nodes as ray_nodes
from tests.examples import ROOT


class Method:
    """A method of an actor on another machine."""

    def __init__(self, run: Callable[..., Any]):
        self.run = run

    def remote(self, *arguments: Any) -> Callable[[], Any]:
        return lambda: self.run(*arguments)


class Node:
    """A node whose probe runs in this process. The methods in `broken` raise."""

    def __init__(self, broken: dict[str, Exception]):
        self.probe, self.broken = ray_nodes._Probe(), broken

    def __getattr__(self, name: str) -> Method:
        def raising(*_: Any) -> None:
            raise self.broken[name]

        return Method(raising if name in self.broken else getattr(self.probe, name))


def test_the_oldest_ray_is_the_one_that_pip_would_install():
    """`ray.train.get_preemption_info` was added in 2.58. The code calls nothing newer."""
    (wanted,) = re.findall(r'"ray\[.*\]>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert tuple(int(part) for part in wanted.split(".")) == ray_nodes.OLDEST


@pytest.fixture(autouse=True)
def answers(monkeypatch):
    monkeypatch.setattr(ray, "get", lambda answer, timeout: answer())


TIMED_OUT = ray.exceptions.GetTimeoutError("Get timed out: some object(s) not ready.")
DENIED = PermissionError("a trace of the other process\n[Errno 13] Permission denied: 'driver'")


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"write_marker": TIMED_OUT}, "timed out"),
        ({"read_markers": TIMED_OUT}, "timed out"),
        ({"read_markers": DENIED}, "Permission denied"),
    ],
)
def test_a_failing_node_does_not_affect_the_storage_check_of_the_others(tmp_path, broken, reason):
    runs = tmp_path / "runs"
    checks = ray_nodes._check_storage(runs, {"a": Node({}), "b": Node(broken), "c": Node({})})
    found = {check.where: check for check in checks}
    assert {where: check.status for where, check in found.items()} == {
        "a": "ok",
        "b": "fail",
        "c": "ok",
    }
    assert reason in found["b"].seen
    assert "\n" not in found["b"].seen
    assert found["b"].fix
    assert not runs.exists()


@pytest.mark.parametrize("broken", ["listen", "find_closed"])
def test_a_failing_node_does_not_affect_the_port_check_of_the_others(broken):
    nodes = {"a": Node({}), "b": Node({broken: TIMED_OUT}), "c": Node({})}
    checks = ray_nodes._check_ports(nodes, dict.fromkeys(nodes, "127.0.0.1"))
    assert {check.where: check.status for check in checks} == {"a": "ok", "b": "fail", "c": "ok"}
    (bad,) = [check for check in checks if check.status == "fail"]
    assert "timed out" in bad.seen
    assert bad.fix


def test_a_closed_port_is_reported():
    nodes = {"a": Node({}), "b": Node({})}
    port = nodes["b"].probe.listen()
    nodes["b"].probe._open.pop().close()
    nodes["b"].probe.listen = lambda: port  # as behind a firewall
    checks = {c.where: c for c in ray_nodes._check_ports(nodes, dict.fromkeys(nodes, "127.0.0.1"))}
    assert checks["b"].status == "ok"
    assert checks["a"].status == "fail"
    assert f"127.0.0.1:{port}" in checks["a"].seen
