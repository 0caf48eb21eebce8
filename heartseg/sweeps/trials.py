"""The trials of a sweep on the driver: connects the study, the run folders and MLflow."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from pathlib import Path
from typing import Any

from heartseg.config.params import Params
from heartseg.config.recipe import Recipe
from heartseg.config.sweep_file import SweepFile
from heartseg.data.privacy import CaseNames
from heartseg.errors import InputError
from heartseg.sweeps.folder import trial_dir
from heartseg.sweeps.study import Search
from heartseg.tracking.sweep_tracker import SweepTracker
from heartseg.tracking.trial import State, Trial
from heartseg.training.journal import read_epochs
from heartseg.training.run_dir import clear_checkpoints, read_state, update_state

INTERRUPTED = "the sweep ended before this trial; run the same command again to continue it"


class SweepTrials:
    """The `heartseg.cluster.tune.TrialSource` of a sweep.

    Args:
        sweep: Content of the sweep file.
        params: Content of params.yaml.
        search: Study of the sweep.
        tracker: Tracker that writes the trials to MLflow.
        folder: Folder of the sweep.
        names: Names of the cases, which replace those of patients in messages.

    Attributes:
        by_number: All trials so far.
        interrupted: Event that ends the sweep when it is set.
        interrupted_by: Number of the signal that has set it.
    """

    def __init__(
        self,
        sweep: SweepFile,
        params: Params,
        search: Search,
        tracker: SweepTracker,
        folder: Path,
        names: CaseNames,
    ):
        self.sweep = sweep
        self.params = params
        self.search = search
        self.tracker = tracker
        self.folder = folder
        self.names = names
        self.by_number: dict[int, Trial] = {}
        self.interrupted = threading.Event()
        self.interrupted_by = 0
        self.started = time.monotonic()
        self.spent = read_state(folder)["seconds"]
        self._pruned: set[int] = set()
        best = search.best()
        self._best = None if best is None else best.number
        for trial in search.finished():
            self.by_number[trial.number] = trial
            self._close_run(trial)

    def next(self) -> Trial | None:
        """Return the next trial to run, or None if there are no more."""
        while (trial := self.search.next()) is not None:
            number, reported = trial.number, trial.epoch
            trial.epoch = 0
            trial.run_dir.mkdir(parents=True, exist_ok=True)
            self.by_number[number] = trial
            try:
                recipe = self.sweep.recipe_for(trial.values, self.params)
                recipe.worker_batch(self.sweep.resources.workers)
            except InputError as error:  # each value is valid, but this combination is not
                self.tracker.begin(trial)
                self.ended(number, str(error))
                continue
            trial.recipe = recipe
            self.tracker.begin(trial)
            for entry in read_epochs(trial.run_dir):  # a killed driver may have missed some
                self._report(trial, entry, known=entry["epoch"] < reported)
            if number not in self._pruned:
                return trial
            self.ended(number, None)
        return None

    def epoch_done(self, number: int) -> bool:
        """Report the new epochs of a trial, and return whether it was pruned."""
        trial = self.by_number[number]
        for entry in read_epochs(trial.run_dir):  # several workers may be epochs ahead of Tune
            if entry["epoch"] > trial.epoch:
                self._report(trial, entry)
        self.save_time()
        return number in self._pruned

    def ended(self, number: int, fault: str | None) -> None:
        """Record the result of a trial, and delete the checkpoints that are no longer needed.

        Args:
            number: Number of the trial.
            fault: Reason of the failure, or None.
        """
        trial = self.by_number[number]
        if number in self._pruned:  # whatever happened afterwards
            self._end(trial, "pruned", self.search.pruned_reason(trial.epoch))
        elif fault is not None:
            self._fail(trial, self.names.text(fault))  # the text may contain the name of a file
        else:
            recipe = self.sweep.recipe_for(trial.values, self.params)
            entry = selected_entry(read_epochs(trial.run_dir), recipe)
            value = trial.value = entry["metrics"][self.sweep.metric]
            if math.isfinite(value):
                self.search.complete(number, value)
                self._end(trial, "complete")
            else:
                self._fail(trial, f"{self.sweep.metric} is {value}")
        best = self.search.best()
        for loser in {number, self._best} - {None if best is None else best.number}:
            if loser is not None:
                clear_checkpoints(trial_dir(self.folder, loser), keep=0)
        self._best = None if best is None else best.number

    def clear_checkpoints(self) -> None:
        """Keep the last checkpoint of the best trial, and those of trials that have not ended."""
        for number, trial in self.by_number.items():
            if trial.state not in ("running", "cut off"):
                clear_checkpoints(trial.run_dir, keep=int(number == self._best))

    def should_stop(self) -> bool:
        """Return whether the sweep was interrupted or has used its time."""
        return self.interrupted.is_set() or self.out_of_time()

    def out_of_time(self) -> bool:
        """Return whether the hours of the sweep are over."""
        return self.sweep.hours is not None and self.seconds() >= 3600 * self.sweep.hours

    def seconds(self) -> float:
        """Return the duration of the sweep in all its sessions."""
        return self.spent + time.monotonic() - self.started

    def save_time(self) -> None:
        """Save the duration of the sweep in its folder."""
        update_state(self.folder, seconds=self.seconds())

    def cut_off(self) -> None:
        """Close the MLflow runs of the trials that are still running."""
        self.save_time()
        for trial in self.by_number.values():
            if trial.state == "running":
                self._end(trial, "cut off", INTERRUPTED)

    def _report(self, trial: Trial, entry: dict[str, Any], known: bool = False) -> None:
        """Report an epoch to the study, which may prune the trial.

        Args:
            trial: The trial.
            entry: Entry of the trial's journal.
            known: Whether the epoch was reported before an interruption. The trial is not pruned
                after such an epoch, because it went on then.
        """
        if trial.number in self._pruned:
            return
        trial.epoch, trial.value = entry["epoch"], entry["metrics"][self.sweep.metric]
        self.search.report(trial.number, trial.epoch, trial.value)
        if not known and trial.epoch < trial.epochs and self.search.should_prune(trial.number):
            # Immediately, because ASHA would not prune at this rung again after a kill.
            self.search.prune(trial.number)
            self._pruned.add(trial.number)

    def _fail(self, trial: Trial, reason: str) -> None:
        self.search.fail(trial.number, reason)
        self._end(trial, "failed", reason)

    def _end(self, trial: Trial, state: State, reason: str = "") -> None:
        trial.reason, trial.state = reason, state
        self.tracker.end(trial)

    def _close_run(self, trial: Trial) -> None:
        """Close the MLflow run of a trial that ended in an earlier session, if it is still open."""
        if read_state(trial.run_dir).get("closed") == trial.state:
            return
        trial.run_dir.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(InputError):  # the reason of its failure
            trial.recipe = self.sweep.recipe_for(trial.values, self.params)
        self.tracker.begin(trial)
        self.tracker.end(trial)


def selected_entry(entries: list[dict[str, Any]], recipe: Recipe) -> dict[str, Any]:
    """Return the journal's entry of the epoch whose weights `fit` selects."""
    if recipe.select == "last":
        return entries[-1]
    return max(entries, key=lambda entry: entry["metrics"]["dice_mean"])
