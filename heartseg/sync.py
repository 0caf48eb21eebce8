"""Send MLflow what trainings, evaluations and registrations kept while it did not answer.

A sweep sends its own records when its command is run again.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartseg.cli import make_app, paragraphs, run_app, run_command
from heartseg.config.params import load_params
from heartseg.paths import MODEL, prepared_path

if TYPE_CHECKING:
    from heartseg.tracking.offline_buffer import Pending

app = make_app()


@app.command(help=paragraphs(__doc__))
def sync() -> None:
    from heartseg.tracking.client import connect, repository_root, tracking_uri
    from heartseg.tracking.offline_buffer import read_pending
    from heartseg.training.journal import read_epochs
    from heartseg.training.run_dir import RUNS, FolderInUse, lock_folder, read_state

    root = repository_root(Path.cwd())
    states = {path: read_state(path) for path in sorted((root / RUNS).glob("*/"))}
    waiting = [path for path, state in states.items() if "opening" in state and not state["sent"]]
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
            with lock_folder(run_dir):
                status = send_run(client, run_dir)
        except FolderInUse:
            print(f"{run_dir}: is in use by a training, which sends its own records")
            continue
        print(f"{run_dir}: {len(read_epochs(run_dir))} epochs are in MLflow, {status}")
    for one in pending:
        if _belongs(f"{one.stage} of {one.results}", one.store, uri):
            _send(client, root, one)


def _belongs(what: str, store: str, uri: str) -> bool:
    """Return whether records belong to the store at `uri`, and print a message if they do not."""
    from heartseg.tracking.client import portable_uri

    # Earlier versions kept the whole path of an SQLite store.
    if store in (portable_uri(uri, Path.cwd()), uri):
        return True
    print(f"{what}: belongs to the store at {store}; set MLFLOW_TRACKING_URI to send it")
    return False


def _send(client: Any, root: Path, pending: Pending) -> None:
    from heartseg.data.privacy import case_names
    from heartseg.evaluation.evaluate import send_evaluation
    from heartseg.evaluation.register import register_model
    from heartseg.models.trained import read_training
    from heartseg.tracking.offline_buffer import remove_pending

    params, results = load_params(), Path(pending.results)
    report = _read(results / "report.json")
    what = f"{pending.stage} of {pending.results}"
    if report.get("weights_md5") != pending.weights_md5:
        print(f"{what}: the results are now those of another model; nothing was sent")
    elif pending.stage == "evaluate":
        names = case_names(params.privacy, prepared_path(pending.dataset))
        training = read_training(results / MODEL)
        send_evaluation(client, pending.dataset, training, report, pending.git, results, names)
        print(f"{what}: is in MLflow")
    else:
        register_model(pending.name, pending.dataset, results, params)
        print(f"{what}: its files now name the version; run `dvc repro` to record them")
    remove_pending(root, pending)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


main = partial(run_app, app, "heartseg sync")

if __name__ == "__main__":
    run_command(main)
