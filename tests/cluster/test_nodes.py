"""A node that does not answer, or raises, is one failed check; the other nodes keep theirs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import ray

from heartseg.cluster import nodes as ray_nodes
from tests.examples import ROOT


class Method:
    """Of an actor on a node of another machine."""

    def __init__(self, run: Callable[..., Any]):
        self.run = run

    def remote(self, *arguments: Any) -> Callable[[], Any]:
        return lambda: self.run(*arguments)


class Node:
    """A node whose visitor runs here, but for what `broken` names."""

    def __init__(self, broken: dict[str, Exception]):
        self.visitor, self.broken = ray_nodes._Probe(), broken

    def __getattr__(self, name: str) -> Method:
        def raising(*_: Any) -> None:
            raise self.broken[name]

        return Method(raising if name in self.broken else getattr(self.visitor, name))


def test_the_oldest_ray_is_the_one_that_pip_would_install():
    """`ray.train.get_preemption_info` came with 2.58; nothing that the code calls is newer."""
    (wanted,) = re.findall(r'"ray\[.*\]>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert tuple(int(part) for part in wanted.split(".")) == ray_nodes.OLDEST


@pytest.fixture(autouse=True)
def answers(monkeypatch):
    monkeypatch.setattr(ray, "get", lambda answer, timeout: answer())


TIMED_OUT = ray.exceptions.GetTimeoutError("Get timed out: some object(s) not ready.")
DENIED = PermissionError("a trace of the other process\n[Errno 13] Permission denied: 'driver'")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"write_marker": TIMED_OUT}, "timed out"),
        ({"read_markers": TIMED_OUT}, "timed out"),
        ({"read_markers": DENIED}, "Permission denied"),
    ],
)
def test_storage_of_the_other_nodes_is_still_looked_at(tmp_path, broken, said):
    runs = tmp_path / "runs"
    checks = ray_nodes._check_storage(runs, {"a": Node({}), "b": Node(broken), "c": Node({})})
    found = {check.where: check for check in checks}
    assert {where: check.status for where, check in found.items()} == {
        "a": "ok",
        "b": "fail",
        "c": "ok",
    }
    assert said in found["b"].seen
    assert "\n" not in found["b"].seen
    assert found["b"].fix
    assert not runs.exists()


@pytest.mark.parametrize("broken", ["listen", "find_closed"])
def test_ports_of_the_other_nodes_are_still_tried(broken):
    nodes = {"a": Node({}), "b": Node({broken: TIMED_OUT}), "c": Node({})}
    checks = ray_nodes._check_ports(nodes, dict.fromkeys(nodes, "127.0.0.1"))
    assert {check.where: check.status for check in checks} == {"a": "ok", "b": "fail", "c": "ok"}
    (bad,) = [check for check in checks if check.status == "fail"]
    assert "timed out" in bad.seen
    assert bad.fix


def test_a_port_that_is_shut_is_named():
    nodes = {"a": Node({}), "b": Node({})}
    port = nodes["b"].visitor.listen()
    nodes["b"].visitor._open.pop().close()
    nodes["b"].visitor.listen = lambda: port  # it said so, but a firewall takes what comes
    checks = {c.where: c for c in ray_nodes._check_ports(nodes, dict.fromkeys(nodes, "127.0.0.1"))}
    assert checks["b"].status == "ok"
    assert checks["a"].status == "fail"
    assert f"127.0.0.1:{port}" in checks["a"].seen
