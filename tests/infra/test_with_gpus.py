"""infra/with_gpus.py against a Ray that only writes down what it is asked for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.infra.stack import INFRA

pytestmark = pytest.mark.slow

RAY = """
import json, os, pathlib

def request_resources(bundles):
    with open(os.environ["ASKED"], "a") as asked:
        asked.write(json.dumps(bundles) + "\\n")

def init(**options):
    pass

def cluster_resources():
    return {"GPU": float(pathlib.Path(os.environ["GPUS"]).read_text())}
"""
COMMAND = """
import pathlib, signal, sys, time

def end(*_):
    time.sleep(1)  # a checkpoint takes a while
    pathlib.Path("checkpoint").touch()
    sys.exit(143)

signal.signal(signal.SIGTERM, end)
pathlib.Path("started").touch()
time.sleep(60)
"""


@pytest.fixture
def start(tmp_path):
    """Run with_gpus.py as a job of its own, on a cluster of so many GPUs, for two."""
    for name in ("ray", "ray/autoscaler", "ray/autoscaler/sdk"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(RAY)
    started = []

    def run(gpus: int, *command: str) -> subprocess.Popen[str]:
        (tmp_path / "gpus").write_text(str(gpus))
        given = {"PYTHONPATH": str(tmp_path), "ASKED": str(tmp_path / "asked")}
        started.append(
            subprocess.Popen(
                [sys.executable, str(INFRA / "with_gpus.py"), "2", *command],
                cwd=tmp_path,
                env=os.environ | given | {"GPUS": str(tmp_path / "gpus")},
                start_new_session=True,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.05)


ASKED_AND_LET_GO = '[{"GPU": 1}, {"GPU": 1}]\n[]\n'


@pytest.mark.parametrize("code", [0, 2])
def test_command_runs_when_the_gpus_are_there(start, tmp_path, code):
    process = start(2, sys.executable, "-c", f"raise SystemExit({code})")
    assert process.wait(60) == code
    assert (tmp_path / "asked").read_text() == ASKED_AND_LET_GO


def test_command_waits_for_gpus(start, tmp_path):
    process = start(1, sys.executable, "-c", "open('started', 'w')")
    wait_for(tmp_path / "asked")
    time.sleep(1)
    assert not (tmp_path / "started").exists()
    (tmp_path / "gpus").write_text("2")
    assert process.wait(60) == 0
    assert (tmp_path / "started").exists()


def test_job_that_is_ended_writes_its_checkpoint_and_lets_the_nodes_go(start, tmp_path):
    process = start(2, sys.executable, "-c", COMMAND)
    wait_for(tmp_path / "started")
    os.killpg(process.pid, signal.SIGTERM)  # as Ray's job stop: to all processes of the job
    assert process.wait(60) == 143
    assert (tmp_path / "checkpoint").exists()
    assert (tmp_path / "asked").read_text() == ASKED_AND_LET_GO


def test_job_that_is_ended_while_it_waits_lets_the_nodes_go(start, tmp_path):
    process = start(0, sys.executable, "-c", "open('started', 'w')")
    wait_for(tmp_path / "asked")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert (tmp_path / "asked").read_text() == ASKED_AND_LET_GO
    assert not (tmp_path / "started").exists()
