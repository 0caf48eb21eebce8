"""Run the recorded training and evaluation of a model again in a worktree, and compare."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from heartseg.data.prepared import file_digest
from heartseg.errors import InputError
from heartseg.models.trained import WEIGHTS, read_training
from heartseg.paths import model_dir, results_dir
from heartseg.report import verdict
from heartseg.text import printable
from heartseg.tracking.provenance import check_out
from heartseg.tracking.reproduction import Packages, RecordedTraining
from heartseg.tracking.worktree import REPRODUCED, open_worktree, restore_data, restore_recipe


def rerun(
    root: Path, recorded: RecordedTraining, packages: Packages, *, keep: bool
) -> verdict.Verdict:
    """Train and evaluate in a worktree with the recorded code and data, and compare.

    Args:
        root: Repository.
        recorded: Records of the training.
        packages: Packages whose versions differ from the recorded ones.
        keep: Whether to keep the worktree.

    Raises:
        InputError: Code or data cannot be restored, or a stage fails.
    """
    with open_worktree(root, recorded.commit, recorded.patch, keep=keep) as place:
        say(f"commit {recorded.commit}{' and patch.diff' if recorded.patch else ''} in {place}")
        origin = restore_data(root, place, recorded.tags, lambda *stage: _run_stage(place, *stage))
        say(f"data {recorded.tags['dvc.prepared_md5']}, {origin}")
        restore_recipe(root, place, recorded.recipe, recorded.started_from)
        engine = ["--in-process"] if recorded.tags.get("machine.engine") == "in-process" else []
        _run_stage(place, "train", REPRODUCED, *engine, OMP_NUM_THREADS=recorded.threads)
        _run_stage(place, "evaluate", REPRODUCED, OMP_NUM_THREADS=recorded.threads)
        return _compare(root, place, recorded, packages)


def _run_stage(place: Path, stage: str, *arguments: str, **extra: str) -> None:
    """Run a stage as dvc.yaml does, but with the code and the store of the worktree.

    `dvc repro` itself would take the outputs from its cache of runs instead of making them, and the
    workers of a cluster would have other code.

    Raises:
        InputError: The stage fails.
    """
    foreign = ("RAY_ADDRESS", "MLFLOW_", "DVC_")
    own = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    paths = filter(None, (str(place), os.environ.get("PYTHONPATH")))
    own |= {
        "MLFLOW_TRACKING_URI": f"sqlite:///{place / 'mlflow.db'}",
        "PYTHONPATH": os.pathsep.join(paths),
        **extra,
    }
    say(f"{stage} {' '.join(arguments)}")
    command = [sys.executable, "-m", f"heartseg.{stage}", *arguments]
    done = subprocess.run(command, cwd=place, env=own, stdout=sys.stderr, check=False)
    if done.returncode:
        raise InputError(
            f"the recorded {stage} stage fails here, see above; --keep leaves its folder"
        )


def _compare(
    root: Path, place: Path, recorded: RecordedTraining, packages: Packages
) -> verdict.Verdict:
    """Compare the model and the metrics in the worktree with the recorded ones."""
    dataset = recorded.recipe["dataset"]
    folder = place / model_dir(dataset)
    training = read_training(folder)
    metrics = json.loads((place / results_dir(dataset) / "report.json").read_text("utf-8"))
    wanted, then = recorded.weights_md5, place / "recorded.safetensors"
    identical = None if wanted is None else file_digest(folder / WEIGHTS) == wanted
    difference = None
    if identical is False and check_out(root, str(wanted), then):  # if DVC's cache has them
        difference = verdict.largest_difference(then, folder / WEIGHTS)
    changed = None
    if recorded.metrics is not None:
        changed = verdict.differing_metrics(recorded.metrics, metrics)
    return verdict.Verdict(
        weights_identical=identical,
        metrics_identical=None if changed is None else not changed,
        weights_difference=difference,
        metrics=changed or [],
        causes=verdict.likely_causes(recorded.tags, training.tags, packages),
    )


def say(text: str) -> None:
    """Print a line on stderr, so that stdout contains the result only."""
    print(f"reproduce: {printable(text, lines=True)}", file=sys.stderr, flush=True)
