"""infra/slurm.sbatch with a real Ray; in Slurm's place stand two commands that do what it does."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.clones import BIN
from tests.examples import ROOT
from tests.infra.stack import INFRA, clean_environment, kill_those_of

pytestmark = [pytest.mark.slow, pytest.mark.chaos]

SRUN = """#!/bin/bash
while [ "${1#--}" != "$1" ]; do shift; done # its options
export SLURM_NODEID=0
exec "$@"
"""
SCONTROL = """#!/bin/bash
echo "$*" >>"$CALLS"
[ "$1 $2" != "show hostnames" ] || echo localhost
"""
DRIVER = """
import os, pathlib, signal, sys, time
import ray

def end(*_):
    assert ray.get(ray.remote(lambda: 7).remote()) == 7  # Ray is still there
    pathlib.Path("checkpoint").touch()
    sys.exit(143)

ray.init(log_to_driver=False)
signal.signal(signal.SIGTERM, end)  # in the place of Ray's own
pathlib.Path("started").touch()
if sys.argv[1] == "wait":
    time.sleep(120)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def start(tmp_path):
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / ".venv").symlink_to(BIN.parent)
    (tmp_path / "driver.py").write_text(DRIVER)
    ray_tmp = Path(f"/tmp/slurm{os.getpid()}")
    given = {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "RAY_TMPDIR": str(ray_tmp),
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "node[1]",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_CPUS_PER_TASK": "2",
    }
    started = []

    def run(how: str) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                ["bash", str(INFRA / "slurm.sbatch"), "python", "driver.py", how],
                env=clean_environment() | given,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return started[-1]

    yield run
    for process in started:
        process.kill()
    kill_those_of(ray_tmp)


def test_out_of_time_the_driver_keeps_its_checkpoint_and_the_job_is_queued_again(start, tmp_path):
    job = start("wait")
    deadline = time.monotonic() + 240
    while not (tmp_path / "started").exists():
        assert job.poll() is None, job.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    job.send_signal(signal.SIGTERM)  # to the batch script alone, as --signal=B:TERM does
    printed = job.communicate(timeout=120)[0]
    assert job.returncode == 143, printed
    assert (tmp_path / "checkpoint").exists(), printed
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == ["show hostnames node[1]", f"requeue {os.getpid()}"]


def test_a_command_that_fails_is_not_queued_again(start, tmp_path):
    job = start("3")
    printed = job.communicate(timeout=300)[0]
    assert job.returncode == 3, printed
    assert "requeue" not in (tmp_path / "calls").read_text()
    assert not (tmp_path / "checkpoint").exists()


def test_the_signal_leaves_time_for_a_checkpoint():
    options = [
        line.split()[1]
        for line in (ROOT / "infra/slurm.sbatch").read_text().splitlines()
        if line.startswith("#SBATCH")
    ]
    (signal_,) = [option for option in options if option.startswith("--signal=B:TERM@")]
    assert int(signal_.rpartition("@")[2]) >= 120
    assert {"--requeue", "--open-mode=append"} <= set(options)
