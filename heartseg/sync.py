"""Send MLflow what trainings have kept in their run folders while it did not answer.

A sweep sends its own when its command is run again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from heartseg.errors import run_command
from heartseg.tracking.faults import without_password
from heartseg.tracking.mlflow import connect, repository_root, tracking_uri
from heartseg.training.journal import read_epochs
from heartseg.training.run_dir import RUNS, InUse, hold, read_state


def main(argv: Sequence[str] | None = None) -> None:
    argparse.ArgumentParser(prog="heartseg sync", description=__doc__).parse_args(argv)
    runs = repository_root(Path.cwd()) / RUNS
    states = {path: read_state(path) for path in sorted(runs.glob("*/"))}
    waiting = [path for path, its in states.items() if "opening" in its and not its["sent"]]
    if not waiting:
        print(f"nothing in {runs} waits to be sent")
        return
    uri = tracking_uri(Path.cwd())
    client = connect(uri)

    from heartseg.tracking.tracker import send_run

    for run_dir in waiting:
        its = states[run_dir]["tracking_uri"]
        if its != without_password(uri):
            print(f"{run_dir}: belongs to the store at {its}; set MLFLOW_TRACKING_URI to send it")
            continue
        try:
            with hold(run_dir):
                status = send_run(client, run_dir)
        except InUse:
            print(f"{run_dir}: is being trained, which sends its own")
            continue
        print(f"{run_dir}: {len(read_epochs(run_dir))} epochs are in MLflow, {status}")


if __name__ == "__main__":
    run_command(main)
