"""Look at everything that a run needs, and say how to mend what is wrong.

RAY_ADDRESS and MLFLOW_TRACKING_URI as for a training. Nothing lasting is changed: the probes (an
MLflow run, an artifact, files in runs/) are deleted again. Only a store that was moved gets its own
artifact locations. Exit code 2 if something fails.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from heartseg.checks.check import Check, Status, attempt
from heartseg.checks.data import check_data
from heartseg.cli import run_command
from heartseg.config.params import load_params
from heartseg.errors import InputError, one_line
from heartseg.text import printable
from heartseg.tracking.client import repository_root
from heartseg.training.run_dir import RUNS

COLOURS: dict[Status, str] = {"ok": "green", "warn": "yellow", "fail": "red"}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="heartseg doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="a list of objects, for programs")
    options = parser.parse_args(argv)
    checks = look()
    if options.json:
        print(json.dumps([asdict(check) for check in checks], indent=1))
    else:
        show(checks)
    failed = sum(check.status == "fail" for check in checks)
    if failed:
        raise InputError(f"{failed} of {len(checks)} checks failed; each says how to mend it")


def look() -> list[Check]:
    """All checks: data and tracking while Ray's processes start."""
    from heartseg.tracking.checks import check_tracking

    root, params = Path.cwd(), load_params()
    names = [params.tracking.experiment_prefix + dataset for dataset in params.pipeline]
    runs = repository_root(root) / RUNS
    with ThreadPoolExecutor(2) as pool:
        data = pool.submit(attempt, "data", "driver", lambda: check_data(params, root))
        tracking = pool.submit(attempt, "tracking", "driver", lambda: check_tracking(root, names))
        cluster = attempt("Ray", "driver", lambda: check_cluster(runs))
        return cluster + tracking.result() + data.result()


def check_cluster(runs: Path) -> list[Check]:
    """Join the cluster at RAY_ADDRESS, or start a local one, and look at its nodes."""
    from heartseg.cluster import train as ray_train  # sets what must be set before ray is imported

    with tempfile.TemporaryDirectory() as folder:
        try:
            ray_train.start_ray(Path(folder) / "ray.log", dashboard=True)
        except InputError as error:
            return [Check("Ray", "driver", "fail", one_line(error), "see the message")]
        except (RuntimeError, ValueError) as error:  # another version, a wrong or no token
            mend = "the driver needs the cluster's versions of Ray and Python, and its token"
            return [Check("Ray", "driver", "fail", one_line(error), mend)]
        from heartseg.cluster import nodes as ray_nodes

        try:
            return ray_nodes.check_nodes(runs)
        finally:
            ray_train.shutdown()


def show(checks: Sequence[Check]) -> None:
    """A table on the terminal."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("check", "where", "", "what was seen", pad_edge=False)
    for check in checks:
        status = f"[{COLOURS[check.status]}]{check.status}[/]"
        mend = f"\n[bold]to mend it:[/] {escape(check.fix)}" if check.fix else ""
        where, seen = (escape(printable(text, lines=True)) for text in (check.where, check.seen))
        table.add_row(check.name, where, status, seen + mend)
    console = Console()
    console.print(table)
    count = Counter(check.status for check in checks)
    console.print(", ".join(f"{count[status]} {status}" for status in COLOURS))


if __name__ == "__main__":
    run_command(main)
