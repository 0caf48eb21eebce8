"""A sweep from its first trial to the registration of its winner."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from heartseg.cluster import train as ray_train  # sets what must be set before ray is imported
from heartseg.data.privacy import case_names
from heartseg.errors import InputError, Stopped
from heartseg.paths import write_text
from heartseg.sweeps.folder import identity, put_aside
from heartseg.sweeps.job import Job, open_sweep_run
from heartseg.sweeps.study import Search
from heartseg.sweeps.trials import SweepTrials
from heartseg.text import csv_text
from heartseg.tracking.client import close_runs, connect, tracking_uri
from heartseg.tracking.faults import writing_to_store
from heartseg.tracking.sweep_tracker import SweepTracker
from heartseg.training.run_dir import handle_termination, read_state, update_state


def run_sweep(job: Job, folder: Path) -> None:
    """Run the trials that are left, then evaluate and register the best one.

    Args:
        job: The sweep.
        folder: Folder of the sweep, held by this process.

    Raises:
        InputError: No trial succeeded.
        SystemExit: The sweep was interrupted; its exit code is 128 + the signal's number.
    """
    search = Search(job.sweep, job.params, folder, identity(job.name, folder))
    hours, spent = job.sweep.hours, read_state(folder)["seconds"]
    to_do = search.anything_left() and (hours is None or spent < 3600 * hours)
    status, tracker = "FAILED", None
    try:
        # The run in MLflow is opened while Ray starts, which takes seconds.
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
            trials.clear_checkpoints()  # again, because a stopped trial may have written one since
        _report(job, search, trials, tracker)
        if trials.interrupted.is_set():
            status = "KILLED"
            print(f"stopped; to continue, run: python -m heartseg.sweep {job.path}")
            sys.exit(128 + trials.interrupted_by)  # so that `heartseg sweep … && …` stops here too
        best = search.best()
        if best is None:
            reasons = "; ".join(sorted(set(search.reasons()))) or "no trial finished"
            raise InputError(f"no trial of {job.path} succeeded: {reasons}")
        print(f"best: trial {best.number:02d}, {job.sweep.metric} {best.value:.4f}: {best.params}")
        if job.sweep.register_ and read_state(folder).get("registered") != best.number:
            from heartseg.sweeps.winner import register_winner

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
    """Open the sweep's run in MLflow, and close the runs of sweeps that were put aside."""
    uri = tracking_uri(Path.cwd())
    client = connect(uri)  # before the tracker's thread starts, because it may create the store
    with writing_to_store(client, "the sweep's run"):
        run = open_sweep_run(client, job, folder, identity(job.name, folder))
        for aside in put_aside(folder):
            close_runs(client, run.experiment, {"heartseg.sweep": identity(job.name, aside)})
    return SweepTracker(uri, run)


def _start_ray(job: Job, folder: Path) -> None:
    resources = job.sweep.resources
    ray_train.start_ray(folder / "ray.log", dashboard=resources.workers > 1)
    from heartseg.cluster import tune as ray_tune

    ray_tune.count_slots(resources)


def _run_trials(job: Job, trials: SweepTrials, folder: Path) -> None:
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
    """Let Ctrl-C, SIGTERM and SIGHUP stop the sweep; a second Ctrl-C ends it at once."""

    def interrupt(number: int, frame: Any) -> None:
        trials.interrupted_by = number
        trials.interrupted.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with handle_termination(interrupt):
            yield
    finally:
        signal.signal(signal.SIGINT, before)


def _report(job: Job, search: Search, trials: SweepTrials, tracker: SweepTracker) -> None:
    """Write Optuna's plots and the table of trials to the results folder and to MLflow."""
    from heartseg.sweeps.report import trials_table, write_plots

    plots = write_plots(search.study, job.sweep.metric, job.results / "plots")
    table = job.results / "trials.csv"
    rows = trials_table(list(trials.by_number.values()), job.sweep.metric)
    write_text(table, csv_text(rows))
    tracker.log_results(plots, table, search.best())
