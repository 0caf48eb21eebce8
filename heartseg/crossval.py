"""Cross-validate a recipe, and register the ensemble of its folds as one model.

The patients that `evaluate` holds out are in no fold. Each of the others is predicted once, by the
network that has not seen it: out_of_fold.csv, and crossval.json with the folds' metrics, their mean
and SD. Test-time augmentation and post-processing are decided by these predictions. Then the
ensemble (the mean of the networks' class probabilities) is evaluated on the held-out patients and
registered, all in results/crossval/RECIPE. The same command goes on where it was cut off.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from heartseg.cli import add_in_process, run_command
from heartseg.config.params import load_params
from heartseg.data.prepared import file_digest, read_prepared
from heartseg.data.splits import fold_of
from heartseg.errors import Stopped
from heartseg.evaluation.evaluate import held_out_rows
from heartseg.paths import prepared_path
from heartseg.tracking.client import repository_root
from heartseg.training.run_dir import RUNS, handle_termination, open_run_dir, raise_stopped


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="heartseg crossval", description=__doc__)
    parser.add_argument("recipe", help="name of a recipe in params.yaml")
    parser.add_argument("--folds", type=_folds, help="datasets.DATASET.split.folds otherwise")
    add_in_process(parser)
    options = parser.parse_args(argv)
    params = load_params()
    recipe = params.recipe(options.recipe)
    prepared = prepared_path(recipe.dataset)
    split, held_out = held_out_rows(prepared, params.evaluate.split)
    configured = params.datasets.of(recipe.dataset).split
    folds = options.folds or configured.folds
    rows = read_prepared(prepared)
    others = set(rows["patient"]) - set(held_out["patient"])
    assigned = fold_of(others, folds, configured.seed)
    engine = "in-process" if options.in_process else "ray"
    # The folder's name tells how it was trained; other folds are another cross-validation: by
    # another seed, networks that are there have seen the patients that they would be judged by.
    how = f"{engine}, {folds} folds by seed {configured.seed} without {split}"
    digest, runs = file_digest(prepared), repository_root(Path.cwd()) / RUNS
    with (
        open_run_dir(runs, f"{options.recipe}-crossval", recipe, digest, how) as folder,
        handle_termination(raise_stopped),
    ):
        from heartseg.folds.job import open_job
        from heartseg.folds.judge import judge_folds, register_ensemble
        from heartseg.folds.train import train_folds

        job = open_job(options.recipe, params, assigned, folder)
        status = "FAILED"
        try:
            train_folds(job, in_process=options.in_process)
            decided = judge_folds(job, rows[rows["patient"].isin(others)])
            register_ensemble(job, decided)
            status = "FINISHED"
        except (KeyboardInterrupt, Stopped):
            status = "KILLED"
            raise
        finally:
            job.client.set_terminated(job.run_id, status)


def _folds(text: str) -> int:
    value = int(text)
    if value < 2:
        raise argparse.ArgumentTypeError(f"{text}: there are at least 2 folds")
    return value


if __name__ == "__main__":
    run_command(main)
