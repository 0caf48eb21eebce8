"""The lines of infra/ray-cluster.yaml, which `ray up` runs over SSH, on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.clones import environment, run
from tests.examples import ROOT
from tests.infra.stack import INFRA, kill_those_of
from tests.tracking.stores import free_port

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(600)]


def test_ray_starts_by_the_lines_of_ray_cluster_yaml(tmp_path):
    """Head and worker as `ray up` starts them, on other ports; only who has the token gets in."""
    config = yaml.safe_load((INFRA / "ray-cluster.yaml").read_text())
    stack_tmp = Path("/tmp") / f"u{os.urandom(3).hex()}"
    home = tmp_path / "home"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray/auth_token").write_text(os.urandom(32).hex())
    bootstrap = config | {"provider": config["provider"] | {"worker_ips": []}}
    from ray.autoscaler._private.util import prepare_config

    (home / "ray_bootstrap_config.yaml").write_text(yaml.safe_dump(prepare_config(bootstrap)))
    gcs = str(free_port())
    given = environment(ROOT) | {
        "HOME": str(home),
        "RAY_raylet_start_wait_time_s": "120",
        "RAY_TMPDIR": str(stack_tmp),
        "RAY_HEAD_IP": "127.0.0.1",
    }
    try:
        for line in (*config["head_start_ray_commands"], *config["worker_start_ray_commands"]):
            if line.endswith("ray stop"):
                continue  # would end the clusters of others on this machine
            line = line.replace("6379", gcs).replace("/srv/heartseg/.venv/bin", "")
            line = line.replace("cd /srv/heartseg", f"cd {tmp_path}").replace(".venv/bin/", "")
            line = line.replace("6380", str(free_port())).replace("6381", str(free_port()))
            first = 20000 if "--head" in line else 21000  # two nodes share one machine here
            line = line.replace("20000", str(first)).replace("20999", str(first + 999))
            if "--head" in line:
                line += f" --dashboard-port={free_port()} --ray-client-server-port={free_port()}"
            done = subprocess.run(
                ["bash", "-c", line], env=given, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
        count = "import ray; ray.init(); print(sum(node['Alive'] for node in ray.nodes()))"
        joined = given | {"RAY_ADDRESS": f"127.0.0.1:{gcs}", "RAY_AUTH_MODE": "token"}
        assert run([sys.executable, "-c", count], tmp_path, extra=joined).strip() == "2"
        stranger = joined | {"RAY_AUTH_TOKEN": "0" * 64}
        done = subprocess.run(
            [sys.executable, "-c", count], env=stranger, capture_output=True, text=True, check=False
        )
        assert done.returncode != 0
        assert "token" in done.stderr
    finally:
        kill_those_of(stack_tmp)
        shutil.rmtree(stack_tmp, ignore_errors=True)
