"""The driver's side of a sweep: joins search, run folders, MLflow and the display."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartseg.config.params import Params
from heartseg.config.recipe import Recipe
from heartseg.config.sweep_file import SweepFile, Values
from heartseg.data.privacy import CaseNames
from heartseg.errors import InputError
from heartseg.sweeps.folder import trial_dir
from heartseg.sweeps.study import REASON, Search
from heartseg.tracking.sweep_tracker import Outcome, SweepTracker
from heartseg.training.journal import read_epochs
from heartseg.training.run_dir import clear_checkpoints, read_state, update_state

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from heartseg.cluster.tune import TrialPlan

CUT_OFF = Outcome("cut off", reason="the sweep ended before it; the same command goes on with it")


@dataclass
class Row:
    """What the display shows of a trial."""

    number: int
    values: Values
    state: str
    epochs: int
    run_dir: Path
    value: float | None = None
    epoch: int = 0
    reason: str = ""


class SweepTrials:
    """The `Trials` of `heartseg.cluster.tune.run_trials`.

    Attributes:
        rows: of all trials so far, by number, for the display.
        interrupted: set it, and the sweep ends.
        interrupted_by: number of the signal.
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
        self.rows: dict[int, Row] = {}
        self.interrupted = threading.Event()
        self.interrupted_by = 0
        self.started = time.monotonic()
        self.spent = read_state(folder)["seconds"]
        self._pruned: set[int] = set()
        best = search.best()
        self._best = None if best is None else best.number
        for trial in search.trials():
            if trial.state.is_finished():
                self._take_over(trial)

    def next(self) -> TrialPlan | None:
        from heartseg.cluster.tune import TrialPlan

        while (suggestion := self.search.next()) is not None:
            number, values = suggestion.number, suggestion.values
            run_dir = trial_dir(self.folder, number)
            run_dir.mkdir(parents=True, exist_ok=True)
            self.rows[number] = Row(number, values, "running", 0, run_dir)
            try:
                recipe = self.sweep.recipe_for(values, self.params)
                recipe.worker_batch(self.sweep.resources.workers)
            except InputError as error:  # single values were checked, not all combinations
                self.tracker.begin(number, run_dir, values, {})
                self.ended(number, str(error))
                continue
            self.rows[number].epochs = recipe.epochs
            self.tracker.begin(number, run_dir, values, recipe.model_dump(mode="json"))
            for entry in read_epochs(run_dir):  # of some of them a killed driver did not hear
                self._hear(number, entry, known=entry["epoch"] < suggestion.epoch)
            if number not in self._pruned:
                return TrialPlan(number, recipe, run_dir)
            self.ended(number, None)
        return None

    def epoch_done(self, number: int) -> bool:
        row = self.rows[number]
        for entry in read_epochs(row.run_dir):  # several workers may be epochs ahead of Tune
            if entry["epoch"] > row.epoch:
                self._hear(number, entry)
        self.save_time()
        return number in self._pruned

    def ended(self, number: int, fault: str | None) -> None:
        row = self.rows[number]
        if number in self._pruned:  # whatever came after that
            reason = f"{self.sweep.pruner.name} at epoch {row.epoch}"
            outcome = Outcome("pruned", row.value, reason)
        elif fault is not None:
            fault = self.names.text(fault)  # it may quote a file's name; tags and tables keep it
            self.search.fail(number, fault)
            outcome = Outcome("failed", reason=fault)
        else:
            recipe = self.sweep.recipe_for(row.values, self.params)
            value = selected_entry(read_epochs(row.run_dir), recipe)["metrics"][self.sweep.metric]
            row.value = value
            if math.isfinite(value):
                self.search.complete(number, value)
                outcome = Outcome("complete", value)
            else:
                reason = f"{self.sweep.metric} is {value}"
                self.search.fail(number, reason)
                outcome = Outcome("failed", reason=reason)
        self._close(number, outcome)
        best = self.search.best()
        for loser in {number, self._best} - {None if best is None else best.number}:
            if loser is not None:
                clear_checkpoints(trial_dir(self.folder, loser), keep=0)
        self._best = None if best is None else best.number

    def clear_checkpoints(self) -> None:
        """Keep the last checkpoint of the best trial, and those of trials that have not ended."""
        for number, row in self.rows.items():
            if row.state not in ("running", "cut off"):
                clear_checkpoints(row.run_dir, keep=int(number == self._best))

    def should_stop(self) -> bool:
        return self.interrupted.is_set() or self.out_of_time()

    def out_of_time(self) -> bool:
        """Whether the sweep's hours are over."""
        return self.sweep.hours is not None and self.seconds() >= 3600 * self.sweep.hours

    def seconds(self) -> float:
        """What the sweep has taken in all its sessions."""
        return self.spent + time.monotonic() - self.started

    def save_time(self) -> None:
        update_state(self.folder, seconds=self.seconds())

    def cut_off(self) -> None:
        """Close the runs of the trials that have not ended."""
        self.save_time()
        for number, row in self.rows.items():
            if row.state == "running":
                self._close(number, CUT_OFF)

    def _hear(self, number: int, entry: dict[str, Any], known: bool = False) -> None:
        """Note an epoch, and whether the trial ends after it; of a `known` one that is decided."""
        if number in self._pruned:
            return
        row = self.rows[number]
        row.epoch, row.value = entry["epoch"], entry["metrics"][self.sweep.metric]
        self.search.report(number, row.epoch, row.value)
        if not known and row.epoch < row.epochs and self.search.should_prune(number):
            # At once: ASHA, asked again after a kill, would not decide on this rung any more.
            self.search.prune(number)
            self._pruned.add(number)

    def _close(self, number: int, outcome: Outcome) -> None:
        row = self.rows[number]
        row.state, row.reason = outcome.state, outcome.reason
        self.tracker.end(number, outcome)

    def _take_over(self, trial: FrozenTrial) -> None:
        """A trial that ended in an earlier session, whose run may not be closed yet."""
        from optuna.trial import TrialState

        values: Values = dict(trial.params)
        run_dir = trial_dir(self.folder, trial.number)
        epoch = trial.last_step or 0
        state = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned"}.get(
            trial.state, "failed"
        )
        reason = trial.user_attrs.get(REASON, "")
        value = trial.value  # of a pruned trial that of its last epoch
        if state == "pruned":
            reason = f"{self.sweep.pruner.name} at epoch {epoch}"
        self.rows[trial.number] = Row(
            trial.number, values, state, epoch, run_dir, value, epoch, reason
        )
        if read_state(run_dir).get("closed") != state:
            run_dir.mkdir(parents=True, exist_ok=True)
            try:
                recipe = self.sweep.recipe_for(values, self.params).model_dump(mode="json")
            except InputError:  # which is why it failed
                recipe = {}
            self.tracker.begin(trial.number, run_dir, values, recipe)
            self.tracker.end(trial.number, Outcome(state, value, reason))


def selected_entry(entries: list[dict[str, Any]], recipe: Recipe) -> dict[str, Any]:
    """The journal's entry of the epoch whose weights become the model, as `fit` selects it."""
    if recipe.select == "last":
        return entries[-1]
    return max(entries, key=lambda entry: entry["metrics"]["dice_mean"])
