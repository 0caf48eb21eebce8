"""Search for the best values of a recipe's fields.

`heartseg sweep FILE` is short for `heartseg sweep run FILE`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from heartseg.cli import make_app, paragraphs, run_app, run_command
from heartseg.config.params import load_params
from heartseg.config.sweep_file import read_sweep

SweepPath = Annotated[
    Path, typer.Argument(metavar="FILE", help="File of the sweep, for example sweeps/camus.yaml.")
]


class DefaultToRun(TyperGroup):
    """A group whose subcommand `run` may be left out."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = make_app(cls=DefaultToRun, help=paragraphs(__doc__))


@app.command()
def run(
    sweep: SweepPath,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Put the present sweep aside and start a new one.")
    ] = False,
) -> None:
    """Run the trials of a sweep, evaluate the winner and register it.

    If a sweep was interrupted, the same command continues it in the same MLflow runs.
    """
    from heartseg.sweeps.folder import open_sweep_dir
    from heartseg.sweeps.job import Job, check_data
    from heartseg.tracking.client import repository_root
    from heartseg.training.run_dir import RUNS, handle_termination, raise_stopped

    params = load_params()
    job = Job(sweep, read_sweep(sweep, params), params)
    check_data(job)
    runs = repository_root(Path.cwd()) / RUNS
    with (
        open_sweep_dir(runs, job.name, job.fingerprint(), fresh=fresh) as folder,
        handle_termination(raise_stopped),
    ):
        from heartseg.sweeps.run import run_sweep

        run_sweep(job, folder)


@app.command()
def apply(sweep: SweepPath) -> None:
    """Write the winning values of a sweep into params.yaml, keeping its comments."""
    from heartseg.sweeps.apply import apply_winner

    apply_winner(sweep)


main = partial(run_app, app, "heartseg sweep")

if __name__ == "__main__":
    run_command(main)
