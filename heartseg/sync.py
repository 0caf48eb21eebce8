"""Send MLflow what trainings, evaluations and registrations have kept while it did not answer.

A sweep sends its own when its command is run again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heartseg.cli import run_command
from heartseg.config.params import load_params
from heartseg.data.privacy import case_names
from heartseg.paths import MODEL, prepared_path
from heartseg.tracking.client import connect, portable_uri, repository_root, tracking_uri
from heartseg.tracking.pending import Pending, read_pending, remove_pending
from heartseg.training.journal import read_epochs
from heartseg.training.run_dir import RUNS, InUse, hold, read_state


def main(argv: Sequence[str] | None = None) -> None:
    argparse.ArgumentParser(prog="heartseg sync", description=__doc__).parse_args(argv)
    root = repository_root(Path.cwd())
    states = {path: read_state(path) for path in sorted((root / RUNS).glob("*/"))}
    waiting = [path for path, its in states.items() if "opening" in its and not its["sent"]]
    pending = read_pending(root)
    if not waiting and not pending:
        print(f"nothing in {root / RUNS} waits to be sent")
        return
    uri = tracking_uri(Path.cwd())
    client = connect(uri)

    from heartseg.tracking.tracker import send_run

    for run_dir in waiting:
        if not _belongs(str(run_dir), states[run_dir]["tracking_uri"], uri):
            continue
        try:
            with hold(run_dir):
                status = send_run(client, run_dir)
        except InUse:
            print(f"{run_dir}: is being trained, which sends its own")
            continue
        print(f"{run_dir}: {len(read_epochs(run_dir))} epochs are in MLflow, {status}")
    for one in pending:
        if _belongs(f"{one.stage} of {one.results}", one.store, uri):
            _send(client, root, one)


def _belongs(what: str, its: str, uri: str) -> bool:
    # Earlier versions kept the whole path of a SQLite store.
    if its in (portable_uri(uri, Path.cwd()), uri):
        return True
    print(f"{what}: belongs to the store at {its}; set MLFLOW_TRACKING_URI to send it")
    return False


def _send(client: Any, root: Path, pending: Pending) -> None:
    from heartseg.evaluation.evaluate import send_evaluation
    from heartseg.evaluation.register import register_model
    from heartseg.models.trained import read_training

    params, results = load_params(), Path(pending.results)
    report = _read(results / "report.json")
    what = f"{pending.stage} of {pending.results}"
    if report.get("weights_md5") != pending.weights_md5:
        print(f"{what}: the results there are of another model now; nothing was sent")
    elif pending.stage == "evaluate":
        names = case_names(params.privacy, prepared_path(pending.dataset))
        training = read_training(results / MODEL)
        send_evaluation(client, pending.dataset, training, report, pending.git, results, names)
        print(f"{what}: is in MLflow")
    else:
        register_model(pending.name, pending.dataset, results, params)
        print(f"{what}: its files name the version now; `dvc repro` takes them over")
    remove_pending(root, pending)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


if __name__ == "__main__":
    run_command(main)
