"""with_gpus.py COUNT COMMAND …: run COMMAND when the Ray cluster has so many GPUs.

A training or sweep takes what the cluster has when it starts. This asks Ray's autoscaler for nodes
first, waits for them, and lets them go afterwards. On a cluster that does not grow it only waits.

Ray ends a job with SIGTERM to each of its processes: COMMAND has it too, and is waited for while it
writes its last checkpoint.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import ray
from ray.autoscaler.sdk import request_resources

LONGEST_WAIT_S = 1800


def main() -> None:
    count, command = int(sys.argv[1]), sys.argv[2:]
    ray.init(address="auto", log_to_driver=False)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    request_resources(bundles=[{"GPU": 1}] * count)
    try:
        deadline = time.monotonic() + LONGEST_WAIT_S
        while (there := ray.cluster_resources().get("GPU", 0)) < count:
            if time.monotonic() > deadline:
                sys.exit(f"error: the cluster has {there:g} of {count} GPUs after 30 minutes")
            time.sleep(2)
        signal.signal(signal.SIGTERM, lambda *_: None)  # an exit here would kill COMMAND at once
        sys.exit(subprocess.run(command, check=False).returncode)
    finally:
        request_resources(bundles=[])


if __name__ == "__main__":
    main()
