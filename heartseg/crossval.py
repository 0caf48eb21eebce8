"""Cross-validate a recipe and register the ensemble of its folds as one model.

The held-out patients of `evaluate` are in no fold. Each other patient is predicted by the network
that was not trained on it. These predictions (out_of_fold.csv) give the metrics of the folds with
their mean and SD (crossval.json), and they select test-time augmentation and post-processing. The
ensemble, the mean of the networks' class probabilities, is then evaluated on the held-out patients
and registered. All results are in results/crossval/RECIPE. If a cross-validation was interrupted,
the same command continues it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from heartseg.cli import InProcess, RecipeName, make_app, paragraphs, run_app, run_command
from heartseg.config.params import load_params
from heartseg.errors import Stopped
from heartseg.paths import prepared_path

app = make_app()


@app.command(help=paragraphs(__doc__))
def crossval(
    recipe: RecipeName,
    folds: Annotated[
        int | None,
        typer.Option(
            min=2,
            metavar="N",
            help="Number of folds. Default: datasets.DATASET.split.folds of params.yaml.",
        ),
    ] = None,
    in_process: InProcess = False,
) -> None:
    from heartseg.data.prepared import file_digest, read_prepared
    from heartseg.data.splits import fold_of
    from heartseg.evaluation.evaluate import held_out_rows
    from heartseg.tracking.client import repository_root
    from heartseg.training.run_dir import RUNS, handle_termination, open_run_dir, raise_stopped

    params = load_params()
    content = params.recipe(recipe)
    prepared = prepared_path(content.dataset)
    split, held_out = held_out_rows(prepared, params.evaluate.split)
    configured = params.datasets.of(content.dataset).split
    folds = folds or configured.folds
    rows = read_prepared(prepared)
    others = set(rows["patient"]) - set(held_out["patient"])
    assigned = fold_of(others, folds, configured.seed)
    engine = "in-process" if in_process else "ray"
    # Folds by another seed are another cross-validation, because its networks were trained on
    # patients that they would be judged by. The name of the run folder therefore includes the seed.
    how = f"{engine}, {folds} folds by seed {configured.seed} without {split}"
    digest, runs = file_digest(prepared), repository_root(Path.cwd()) / RUNS
    with (
        open_run_dir(runs, f"{recipe}-crossval", content, digest, how) as folder,
        handle_termination(raise_stopped),
    ):
        from heartseg.folds.job import open_job
        from heartseg.folds.results import evaluate_folds, register_ensemble
        from heartseg.folds.train import train_folds

        job = open_job(recipe, params, assigned, folder)
        status = "FAILED"
        try:
            train_folds(job, in_process=in_process)
            decided = evaluate_folds(job, rows[rows["patient"].isin(others)])
            register_ensemble(job, decided)
            status = "FINISHED"
        except (KeyboardInterrupt, Stopped):
            status = "KILLED"
            raise
        finally:
            job.client.set_terminated(job.run_id, status)


main = partial(run_app, app, "heartseg crossval")

if __name__ == "__main__":
    run_command(main)
