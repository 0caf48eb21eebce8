"""What follows from a node's report: each fault, and its fix."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from heartseg.checks import node
from heartseg.checks.node import Gpu, NodeReport, check_clock, check_node, check_storage

H200 = Gpu("NVIDIA H200", 140_000_000_000, 139_000_000_000)
GOOD = NodeReport(
    host="gpu1",
    time=1.7e9,
    python="3.11.7",
    libraries={"ray": "2.60.0", "torch": "2.15.0", "mlflow": "3.17.2"},
    code="a" * 32,
    disks={"/srv/runs": 500e9},
    gpus=[H200],
    ray_gpus=1.0,
    auth_mode="token",
    skew=0.01,
    uncertainty=0.02,
)


def faults(**changes) -> dict[str, str]:
    """Status by name of the failed checks of a node with these faults."""
    checks = check_node(replace(GOOD, **changes), GOOD)
    assert all(check.fix for check in checks if check.status != "ok")
    assert all(check.where == "gpu1" for check in checks)
    return {check.name: check.status for check in checks if check.status != "ok"}


def test_all_well():
    assert faults() == {}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"libraries": GOOD.libraries | {"torch": "2.14.0"}}, {"versions": "fail"}),
        ({"libraries": GOOD.libraries | {"ray": "none"}}, {"versions": "fail"}),
        ({"python": "3.12.7"}, {"versions": "fail"}),
        ({"python": "3.11.9"}, {}),
        ({"code": "b" * 32}, {"versions": "fail"}),
        ({"gpus": [], "ray_gpus": 0.0}, {}),
        ({"gpus": []}, {"GPUs": "fail"}),  # Ray would assign a GPU that does not exist
        ({"ray_gpus": 0.0}, {"GPUs": "warn"}),
        ({"gpus": [replace(H200, free=20_000_000_000)]}, {"GPUs": "warn"}),
        ({"disks": {"/srv/runs": 500e9, "/tmp/ray": 10e9}}, {"disk": "warn"}),
        ({"disks": {"/srv/runs": 1e9}}, {"disk": "fail"}),
        ({"skew": -5.0}, {"clock": "warn"}),
        ({"skew": 90.0}, {"clock": "fail"}),
        ({"skew": 5.0, "uncertainty": 6.0}, {}),  # the node was slow to answer
        ({"auth_mode": "disabled"}, {"Ray token": "fail"}),
        ({"auth_mode": ""}, {"Ray token": "fail"}),
    ],
)
def test_each_fault_is_found_alone(changes, found):
    assert faults(**changes) == found


def test_a_clock_within_the_uncertainty_is_right():
    assert check_clock("a", 1.2, 0.3).status == "ok"
    assert check_clock("a", -1.4, 0.3).status == "warn"
    assert "-1.40 ± 0.30" in check_clock("a", -1.4, 0.3).seen


def test_report_of_this_machine(tmp_path):
    here = node.report([tmp_path, tmp_path / "absent"], ray_gpus=2.0)
    assert here.disks == {str(tmp_path): pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)}
    assert here.ray_gpus == 2.0
    assert here.libraries["ray"].count(".") == 2
    assert len(here.code) == 32


# --- shared storage -----------------------------------------------------------------------


def visit(folders: dict[str, Path]) -> dict[str, str]:
    """Status by node if each has its own folder at the path of the runs."""
    wrote = {name: node.write_marker(folder, name) for name, folder in folders.items()}
    marks = [name for name in folders if wrote[name]]
    checks = [
        check_storage(name, Path("/runs"), wrote[name], node.read_markers(folder), marks)
        for name, folder in folders.items()
    ]
    assert all(check.fix for check in checks if check.status == "fail")
    return {check.where: check.status for check in checks}


def test_a_folder_that_all_share(tmp_path):
    assert visit({"a": tmp_path, "b": tmp_path}) == {"a": "ok", "b": "ok"}


def test_a_node_with_a_folder_of_its_own(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "shared").mkdir()
    found = visit({"a": tmp_path / "shared", "b": tmp_path / "other"})
    assert found == {"a": "fail", "b": "fail"}  # neither sees the other's file


def test_a_node_without_the_folder(tmp_path):
    assert visit({"a": tmp_path, "b": tmp_path / "absent"}) == {"a": "ok", "b": "fail"}
    assert not (tmp_path / "absent").exists()


def test_a_folder_that_cannot_be_written():
    check = check_storage("a", Path("/runs"), "Read-only file system", [], [])
    assert check.status == "fail"
    assert "Read-only" in check.seen


def test_a_marker_with_wrong_content_is_ignored(tmp_path):
    node.write_marker(tmp_path, "a")
    (tmp_path / "b").write_text("")  # as while its content is still on the way
    assert node.read_markers(tmp_path) == ["a"]
