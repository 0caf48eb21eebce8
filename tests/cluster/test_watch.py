"""Waiting for a busy cluster, and addresses and folders that Ray cannot use."""

from __future__ import annotations

import _thread
import signal
import subprocess
import sys
import threading
import time

import pytest

from heartseg.cluster import train as ray_train
from heartseg.cluster import watch as ray_watch
from heartseg.errors import InputError, Stopped
from heartseg.training.run_dir import STOP
from tests.clones import environment
from tests.cluster.test_train import cluster, data, train_config
from tests.examples import small_recipe

__all__ = ["cluster", "data"]

pytestmark = pytest.mark.slow


def test_waiting_for_resources_is_reported_and_can_be_stopped(
    cluster, params, data, tmp_path, monkeypatch, capfd
):
    import ray

    monkeypatch.setattr(ray_watch, "FIRST_REPORT_SECONDS", 0.1)
    total = int(ray.cluster_resources()["CPU"])
    taken = ray.util.placement_group([{"CPU": total}])
    assert taken.wait(60)
    printed: list[str] = []

    def when_reported(act) -> None:
        while "waiting for" not in "".join(printed):
            printed.append(capfd.readouterr().err)
            time.sleep(0.1)
        act()

    ends = {Stopped: (tmp_path / STOP).touch, KeyboardInterrupt: _thread.interrupt_main}
    at_ctrl_c = signal.getsignal(signal.SIGINT)
    for raised, act in ends.items():
        printed.clear()
        (tmp_path / STOP).unlink(missing_ok=True)
        threading.Thread(target=when_reported, args=[act], daemon=True).start()
        with pytest.raises(raised):
            cluster.train_on_cluster(small_recipe(params), train_config(params, 2), data, tmp_path)
        assert f"waiting for {total} CPU" in "".join(printed)
        assert f"the cluster has 0 free of {total}" in "".join(printed)
    assert signal.getsignal(signal.SIGINT) == at_ctrl_c
    ray.util.remove_placement_group(taken)


@pytest.mark.parametrize(
    "address", ["6379", "host", "host:port", "http://host:6379", "host:99999", "a b:6379", ":6379"]
)
def test_a_malformed_address_is_reported(address, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError) as caught:
        ray_train.start_ray(tmp_path / "ray.log")
    assert f"RAY_ADDRESS={address} " in str(caught.value)
    assert "HOST:PORT" in str(caught.value)


def test_a_temporary_folder_with_too_long_a_path_is_reported(tmp_path):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    code = (
        "from pathlib import Path\n"
        "from heartseg.cli import run_command\n"
        "from heartseg.cluster import train as ray_train\n"
        "run_command(lambda argv: ray_train.start_ray(Path('ray.log')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(tmp_path) | {"TMPDIR": str(long)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert f"TMPDIR={long} is too long" in done.stderr
    assert "RAY_ADDRESS" not in done.stderr
