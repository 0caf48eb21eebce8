"""Check everything that a run needs, and say how to fix what is wrong.

Uses RAY_ADDRESS and MLFLOW_TRACKING_URI in the same way as a training. The probes (an MLflow run,
an artifact, files in runs/) are deleted again, so nothing lasting changes, except that the artifact
locations of a store that was moved are corrected. The exit code is 2 if a check fails.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heartseg.cli import make_app, paragraphs, run_app, run_command
from heartseg.config.params import load_params
from heartseg.errors import InputError, one_line
from heartseg.text import printable

if TYPE_CHECKING:
    from heartseg.checks.check import Check, Status

COLOURS: dict[Status, str] = {"ok": "green", "warn": "yellow", "fail": "red"}

app = make_app()


@app.command(help=paragraphs(__doc__))
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list of checks.")] = False,
) -> None:
    checks = run_checks()
    if as_json:
        print(json.dumps([asdict(check) for check in checks], indent=1))
    else:
        show(checks)
    failed = sum(check.status == "fail" for check in checks)
    if failed:
        raise InputError(f"{failed} of {len(checks)} checks failed; each says how to fix it")


def run_checks() -> list[Check]:
    """Run all checks: data and tracking while the processes of Ray start."""
    from heartseg.checks.check import attempt
    from heartseg.checks.data import check_data
    from heartseg.tracking.client import repository_root
    from heartseg.tracking.server_checks import check_tracking
    from heartseg.training.run_dir import RUNS

    root, params = Path.cwd(), load_params()
    names = [params.tracking.experiment_prefix + dataset for dataset in params.pipeline]
    runs = repository_root(root) / RUNS
    with ThreadPoolExecutor(2) as pool:
        data = pool.submit(attempt, "data", "driver", lambda: check_data(params, root))
        tracking = pool.submit(attempt, "tracking", "driver", lambda: check_tracking(root, names))
        cluster = attempt("Ray", "driver", lambda: check_cluster(runs))
        return cluster + tracking.result() + data.result()


def check_cluster(runs: Path) -> list[Check]:
    """Join the cluster at RAY_ADDRESS, or start a local one, and check its nodes."""
    from heartseg.checks.check import Check
    from heartseg.cluster import train as ray_train  # sets what must be set before ray is imported

    with tempfile.TemporaryDirectory() as folder:
        try:
            ray_train.start_ray(Path(folder) / "ray.log", dashboard=True)
        except InputError as error:
            return [Check("Ray", "driver", "fail", one_line(error), "see the message")]
        except (RuntimeError, ValueError) as error:  # another version, a wrong token or none
            fix = "the driver needs the cluster's versions of Ray and Python, and its token"
            return [Check("Ray", "driver", "fail", one_line(error), fix)]
        from heartseg.cluster import nodes as ray_nodes

        try:
            return ray_nodes.check_nodes(runs)
        finally:
            ray_train.shutdown()


def show(checks: Sequence[Check]) -> None:
    """Print a table of the checks."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("check", "where", "", "result", pad_edge=False)
    for check in checks:
        status = f"[{COLOURS[check.status]}]{check.status}[/]"
        fix = f"\n[bold]to fix it:[/] {escape(check.fix)}" if check.fix else ""
        where, seen = (escape(printable(text, lines=True)) for text in (check.where, check.seen))
        table.add_row(check.name, where, status, seen + fix)
    console = Console()
    console.print(table)
    count = Counter(check.status for check in checks)
    console.print(", ".join(f"{count[status]} {status}" for status in COLOURS))


main = partial(run_app, app, "heartseg doctor")

if __name__ == "__main__":
    run_command(main)
