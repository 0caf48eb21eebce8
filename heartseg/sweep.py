"""Search the best values of a recipe's fields, evaluate the winner and register it.

The same command goes on with a sweep that was cut off, in the same MLflow runs.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartseg.cli import run_command
from heartseg.config.params import PARAMS_FILE, load_params
from heartseg.config.sweep_file import RECIPE, read_sweep
from heartseg.data.privacy import case_names
from heartseg.errors import InputError, Stopped
from heartseg.paths import write_text
from heartseg.sweeps.folder import find_sweep_dir, identity, open_sweep_dir, put_aside
from heartseg.sweeps.job import Job, check_data
from heartseg.text import csv_text
from heartseg.tracking.client import repository_root
from heartseg.training.run_dir import RUNS, handling_end, read_state, stop_now, update_state

if TYPE_CHECKING:
    from heartseg.sweeps.study import Search
    from heartseg.sweeps.trials import SweepTrials
    from heartseg.tracking.sweep_tracker import SweepTracker


def main(argv: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["apply"]:
        parser = argparse.ArgumentParser("heartseg sweep apply", description=apply.__doc__)
        parser.add_argument("sweep", type=Path, help="the sweep's file")
        apply(parser.parse_args(arguments[1:]).sweep)
        return
    parser = argparse.ArgumentParser(
        "heartseg sweep",
        description=__doc__,
        epilog="`heartseg sweep apply FILE` writes the winner into params.yaml.",
    )
    parser.add_argument("sweep", type=Path, help="a file like sweeps/camus.yaml")
    parser.add_argument(
        "--fresh", action="store_true", help="put the sweep that was begun aside and start anew"
    )
    options = parser.parse_args(arguments)
    params = load_params()
    job = Job(options.sweep, read_sweep(options.sweep, params), params)
    check_data(job)

    with (
        open_sweep_dir(_runs(), job.name, job.made_of(), fresh=options.fresh) as folder,
        handling_end(stop_now),
    ):
        _sweep(job, folder)


def _sweep(job: Job, folder: Path) -> None:
    from heartseg.cluster import train as ray_train
    from heartseg.sweeps.study import Search
    from heartseg.sweeps.trials import SweepTrials
    from heartseg.sweeps.winner import register_winner

    search = Search(job.sweep, job.params, folder, identity(job.name, folder))
    hours, spent = job.sweep.hours, read_state(folder)["seconds"]
    to_do = search.anything_left() and (hours is None or spent < 3600 * hours)
    status, tracker = "FAILED", None
    try:
        # MLflow's run is opened while Ray starts, which takes seconds.
        with ThreadPoolExecutor(1) as pool:
            opening = pool.submit(_open_tracker, job, folder)
            try:
                if to_do:
                    _start_ray(job, folder)
            finally:
                tracker = opening.result()
        with tracker:
            names = case_names(job.params.privacy, job.prepared)
            trials = SweepTrials(job.sweep, job.params, search, tracker, folder, names)
            if to_do:
                _run_trials(job, trials, folder)
            trials.clear_checkpoints()  # again: a stopped trial may have written one since
        _report(job, search, trials, tracker)
        if trials.interrupted.is_set():
            status = "KILLED"
            print(f"stopped; go on with: python -m heartseg.sweep {job.path}")
            sys.exit(128 + trials.interrupted_by)  # so that `heartseg sweep … && …` ends here, too
        best = search.best()
        if best is None:
            reasons = "; ".join(sorted(set(search.reasons()))) or "none ran to its end"
            raise InputError(f"no trial of {job.path} succeeded: {reasons}")
        print(f"best: trial {best.number:02d}, {job.sweep.metric} {best.value:.4f}: {best.params}")
        if job.sweep.register_ and read_state(folder).get("registered") != best.number:
            register_winner(job, best, tracker, folder)
            update_state(folder, registered=best.number)
        status = "FINISHED"
    except (KeyboardInterrupt, Stopped):
        status = "KILLED"
        raise
    finally:
        if to_do:
            ray_train.shutdown()
        if tracker is not None:
            tracker.close_sweep(status)


def _open_tracker(job: Job, folder: Path) -> SweepTracker:
    """The sweep's run in MLflow, and who writes to it."""
    from heartseg.sweeps.job import open_sweep_run
    from heartseg.tracking.client import close_runs, connect, tracking_uri
    from heartseg.tracking.faults import writing_to_store
    from heartseg.tracking.sweep_tracker import SweepTracker

    uri = tracking_uri(Path.cwd())
    client = connect(uri)  # before the tracker's thread: it may create the store
    with writing_to_store(client, "the sweep's run"):
        run = open_sweep_run(client, job, folder, identity(job.name, folder))
        for aside in put_aside(folder):
            close_runs(client, run.experiment, {"heartseg.sweep": identity(job.name, aside)})
    return SweepTracker(uri, run)


def _start_ray(job: Job, folder: Path) -> None:
    from heartseg.cluster import train as ray_train

    resources = job.sweep.resources
    ray_train.start_ray(folder / "ray.log", dashboard=resources.workers > 1)
    from heartseg.cluster import tune as ray_tune

    ray_tune.count_slots(resources)


def _run_trials(job: Job, trials: SweepTrials, folder: Path) -> None:
    from heartseg.cluster import train as ray_train
    from heartseg.cluster import tune as ray_tune
    from heartseg.cluster.watch import watched
    from heartseg.sweeps.display import SweepDisplay

    def give_up() -> None:
        trials.cut_off()
        trials.tracker.__exit__()
        trials.tracker.close_sweep("FAILED")

    try:
        with _interruptible(trials), SweepDisplay(trials), watched(give_up=give_up):
            resources = job.sweep.resources
            ray_tune.run_trials(trials, job.train, resources, job.prepared, folder)
    finally:
        trials.cut_off()
        ray_train.shutdown()


@contextmanager
def _interruptible(trials: SweepTrials) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP end the sweep; a second Ctrl-C ends it at once."""

    def interrupt(number: int, frame: Any) -> None:
        trials.interrupted_by = number
        trials.interrupted.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with handling_end(interrupt):
            yield
    finally:
        signal.signal(signal.SIGINT, before)


def _report(job: Job, search: Search, trials: SweepTrials, tracker: SweepTracker) -> None:
    """Optuna's plots and the table of trials, in the results and in MLflow."""
    from heartseg.sweeps.report import trials_table, write_plots

    plots = write_plots(search.study, job.sweep.metric, job.results / "plots")
    table = job.results / "trials.csv"
    rows = trials_table(list(trials.rows.values()), job.sweep.metric)
    write_text(table, csv_text(rows))
    tracker.log_results(plots, table, search.best())


def apply(path: Path) -> None:
    """Write the winning values of a sweep into params.yaml, its comments kept."""
    from heartseg.config.yaml_file import change_yaml
    from heartseg.sweeps.study import best_of

    params = load_params()
    sweep = read_sweep(path, params)
    folder = find_sweep_dir(_runs(), path.stem)
    begun = read_state(folder)["made_of"]["file"]["recipe"]
    if begun != sweep.recipe:
        raise InputError(
            f"{folder} is a sweep of recipe {begun}, {path} now names {sweep.recipe}; name {begun} "
            "again, or run the sweep first"
        )
    best = best_of(folder, identity(path.stem, folder))
    if best is None:
        raise InputError(f"{folder}: no trial ran to its end yet; run `heartseg sweep {path}`")
    values = dict(best.params)
    name = str(values.pop(RECIPE, sweep.recipe))
    changes: dict[tuple[str, ...], Any] = {
        ("recipes", name, *field.split(".")): value for field, value in values.items()
    }
    changes["pipeline", params.recipe(name).dataset] = name
    change_yaml(Path(PARAMS_FILE), changes)
    print(f"{PARAMS_FILE}: recipes.{name} has the values of trial {best.number:02d}: {values}")


def _runs() -> Path:
    return repository_root(Path.cwd()) / RUNS


if __name__ == "__main__":
    run_command(main)
