"""Make a registered model again from what is recorded of it, and compare.

A temporary worktree gets the recorded code and data; the stages train and evaluate run there with
a store of their own, so that runs and registry stay as they are. Recorded code is a program: it is
shown, and runs only after a yes. Exit code 0: weights or metrics are identical.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from heartseg.cli import agrees, run_command
from heartseg.config.params import PARAMS_FILE
from heartseg.errors import InputError
from heartseg.paths import model_dir, results_dir
from heartseg.text import printable

if TYPE_CHECKING:
    from heartseg.report.verdict import Verdict
    from heartseg.tracking.reproduction import Packages, RecordedTraining


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="heartseg reproduce", description=__doc__)
    parser.add_argument("model", help="models:/NAME@ALIAS, models:/NAME/VERSION or runs:/ID")
    parser.add_argument("--strict", action="store_true", help="refuse where the packages differ")
    parser.add_argument("--keep", action="store_true", help="leave the worktree, to look at it")
    parser.add_argument("--yes", action="store_true", help="run the recorded code without asking")
    parser.add_argument("--json", action="store_true", help="the verdict for machines")
    options = parser.parse_args(argv)
    root = Path.cwd()
    if not (root / PARAMS_FILE).exists():
        raise InputError(f"{PARAMS_FILE} does not exist; run from the root of the repository")

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the worktree goes then, too
    from rich.console import Console

    from heartseg.report.verdict import verdict_view
    from heartseg.tracking.client import connect, tracking_uri
    from heartseg.tracking.lineage import find_model
    from heartseg.tracking.reproduction import (
        differing_packages,
        read_recorded_training,
        reproduction_warnings,
    )

    client = connect(tracking_uri(root))
    recorded = read_recorded_training(client, find_model(client, options.model), options.model)
    packages = differing_packages(recorded)
    found = reproduction_warnings(root, recorded, packages)
    if found and options.strict:
        raise InputError(
            "\n".join(found) + f"\nInstall requirements.lock of commit {recorded.commit}, or "
            "leave out --strict to see what comes of it"
        )
    for doubt in found:
        _say(f"warning: {doubt}")
    _ask(root, recorded, yes=options.yes)
    verdict = _reproduce(root, recorded, packages, keep=options.keep)
    if options.json:
        print(json.dumps(verdict.as_json(), indent=1))
    else:
        Console(highlight=False).print(verdict_view(verdict))
    if not verdict.reproduced:
        sys.exit(1)


def _ask(root: Path, recorded: RecordedTraining, *, yes: bool) -> None:
    """Show the code that would run, and go on only if the user agrees.

    Raises:
        InputError: they do not, or there is no terminal to ask on.
    """
    from heartseg.tracking.provenance import PATCH_TAG
    from heartseg.tracking.worktree import describe_code

    told = describe_code(root, recorded.commit, recorded.patch)
    if recorded.patch:
        told += f"\nMD5 {recorded.tags[PATCH_TAG]}, as recorded by the training"
    for line in told.split("\n"):
        _say(line)
    if yes:
        return
    if not sys.stdin.isatty():
        raise InputError(
            "reproduce runs the code above, and there is no terminal to ask on. Give --yes if you "
            "trust it"
        )
    if not agrees("run this code?"):
        raise InputError("nothing was run; answer y, or give --yes")


def _reproduce(
    root: Path, recorded: RecordedTraining, packages: Packages, *, keep: bool
) -> Verdict:
    from heartseg.tracking.worktree import REPRODUCED, open_worktree, restore_data, restore_recipe

    with open_worktree(root, recorded.commit, recorded.patch, keep=keep) as place:
        _say(f"commit {recorded.commit}{' and patch.diff' if recorded.patch else ''} in {place}")
        origin = restore_data(root, place, recorded.tags, lambda *stage: _run_stage(place, *stage))
        _say(f"data {recorded.tags['dvc.prepared_md5']}, {origin}")
        restore_recipe(root, place, recorded.recipe, recorded.started_from)
        how = ["--in-process"] if recorded.tags.get("machine.engine") == "in-process" else []
        _run_stage(place, "train", REPRODUCED, *how, OMP_NUM_THREADS=recorded.threads)
        _run_stage(place, "evaluate", REPRODUCED, OMP_NUM_THREADS=recorded.threads)
        return _judge(root, place, recorded, packages)


def _run_stage(place: Path, stage: str, *arguments: str, **extra: str) -> None:
    """Run a stage as dvc.yaml does, but with the worktree's own code and store.

    `dvc repro` itself would take the outputs from its cache of runs instead of making them, and
    the workers of a cluster would have other code.

    Raises:
        InputError: it failed.
    """
    foreign = ("RAY_ADDRESS", "MLFLOW_", "DVC_")
    own = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    paths = filter(None, (str(place), os.environ.get("PYTHONPATH")))
    own |= {
        "MLFLOW_TRACKING_URI": f"sqlite:///{place / 'mlflow.db'}",
        "PYTHONPATH": os.pathsep.join(paths),
        **extra,
    }
    _say(f"{stage} {' '.join(arguments)}")
    command = [sys.executable, "-m", f"heartseg.{stage}", *arguments]
    done = subprocess.run(command, cwd=place, env=own, stdout=sys.stderr, check=False)
    if done.returncode:
        raise InputError(
            f"the recorded {stage} stage does not run here, see above; --keep leaves its folder"
        )


def _judge(root: Path, place: Path, recorded: RecordedTraining, packages: Packages) -> Verdict:
    """Compare the model and the metrics in the worktree with the recorded ones."""
    from heartseg.data.prepared import file_digest
    from heartseg.models.trained import WEIGHTS, read_training
    from heartseg.report import verdict
    from heartseg.tracking.provenance import check_out

    dataset = recorded.recipe["dataset"]
    folder = place / model_dir(dataset)
    training = read_training(folder)
    metrics = json.loads((place / results_dir(dataset) / "report.json").read_text("utf-8"))
    wanted, then = recorded.weights_md5, place / "recorded.safetensors"
    identical = None if wanted is None else file_digest(folder / WEIGHTS) == wanted
    difference = None
    if identical is False and check_out(root, str(wanted), then):  # `results` is under DVC
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


def _say(text: str) -> None:
    print(f"reproduce: {printable(text, lines=True)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_command(main)
