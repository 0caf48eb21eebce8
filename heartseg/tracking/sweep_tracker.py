"""A sweep in MLflow: a parent run, and in it a run per trial.

The trials' folders are the truth; a thread of the driver mirrors them to the store. It may be
killed, and the store may be away, at any moment: nothing is lost, doubled or left RUNNING once
the same command has run to its end.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from heartseg.errors import InputError
from heartseg.tracking.artifacts import FOLDER, MACHINE, facts_text
from heartseg.tracking.client import connect, delete_runs, open_run
from heartseg.tracking.faults import first_line, store_errors, without_password
from heartseg.tracking.sender import JournalSender
from heartseg.training.journal import read_epochs
from heartseg.training.machine import machine_tags
from heartseg.training.run_dir import read_state, update_state

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from heartseg.config.sweep_file import Values

POLL_S = 1.0
CLOSE_S = 30.0  # the end of a sweep waits so long for the last points
SHORT = {"learning_rate": "lr", "batch_size": "bs", "input_size": "size", "weight_decay": "wd"}
STATE_TAG = "heartseg.state"
REASON_TAG = "heartseg.reason"
CHECKPOINT = "heartseg.checkpoint"
"""The folder of a trial's checkpoint and journal, among the facts about its machine."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Attributes:
        state: "complete", "pruned", "failed" or "cut off".
        value: of the sweep's metric, where there is one.
        reason: why it is not complete.
    """

    state: str
    value: float | None = None
    reason: str = ""

    @property
    def status(self) -> str:
        """MLflow's word."""
        return {"failed": "FAILED", "cut off": "KILLED"}.get(self.state, "FINISHED")


@dataclass
class _Trial:
    run_dir: Path
    values: Values
    recipe: dict[str, Any]
    number: int
    outcome: Outcome | None = None
    sender: JournalSender | None = None
    has_recipe: bool = False


@dataclass(frozen=True)
class SweepRun:
    """The parent run, and what all runs of the sweep have in common.

    Attributes:
        run_id: of the parent.
        experiment: name.
        dataset: the dataset's name.
        data_source: of the prepared dataset.
        data_digest: MD5 of the prepared dataset.
        tags: lineage; "heartseg.sweep" tells the sweep from all others.
        records: of `heartseg.tracking.artifacts`.
    """

    run_id: str
    experiment: str
    dataset: str
    data_source: str
    data_digest: str
    tags: dict[str, str] = field(default_factory=dict)
    records: dict[str, str] = field(default_factory=dict)

    def recipe_name(self, number: int) -> str:
        """What a trial's recipe is called, and the model that is trained by it."""
        return f"{self.tags['heartseg.sweep']}/{number:02d}"


class SweepTracker:
    """Mirrors trials to MLflow, in a thread, while it is used as a context manager."""

    def __init__(self, uri: str, sweep: SweepRun):
        self.client = connect(uri)
        self.uri = uri
        self.sweep = sweep
        self._trials: dict[int, _Trial] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._follow, name="sweep tracker", daemon=True)

    def begin(self, number: int, run_dir: Path, values: Values, recipe: dict[str, Any]) -> None:
        """Open a trial's run, or continue it."""
        with self._lock:
            self._trials[number] = _Trial(run_dir, values, recipe, number)

    def end(self, number: int, outcome: Outcome) -> None:
        """Close a trial's run when all its points are there."""
        with self._lock:
            self._trials[number].outcome = outcome

    def __enter__(self) -> SweepTracker:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._closing.set()
        self._thread.join(CLOSE_S + 5)  # a request may hang for longer than that
        if self._failure is not None:
            _log.warning(
                "MLflow at %s did not take everything (%s); the same command sends the rest",
                without_password(self.uri),
                first_line(self._failure),
            )

    def log_results(self, plots: list[Path], table: Path, best: FrozenTrial | None) -> None:
        """Add the sweep's plots, its table of trials and its best trial to its run."""
        from mlflow.entities import Metric

        def send() -> None:
            for path in plots:
                self.client.log_artifact(self.sweep.run_id, str(path), "plots")
            self.client.log_artifact(self.sweep.run_id, str(table))
            if best is not None and best.datetime_complete is not None:
                when = int(best.datetime_complete.timestamp() * 1000)
                metric = Metric("best_value", best.value, when, 0)
                self.client.log_batch(self.sweep.run_id, metrics=[metric])
                self.client.set_tag(self.sweep.run_id, "heartseg.best_trial", str(best.number))

        self._try(send)

    def close_sweep(self, status: str) -> None:
        """End the sweep's own run."""
        self._try(lambda: self.client.set_terminated(self.sweep.run_id, status))

    def _try(self, action: Callable[[], None]) -> None:
        """A store that is away costs no result; the same command sends it later."""
        try:
            action()
        except store_errors() as error:
            _log.warning(
                "MLflow at %s did not take the sweep's results (%s); they are on disk, the same "
                "command sends them",
                without_password(self.uri),
                first_line(error),
            )

    def _follow(self) -> None:
        while not self._closing.wait(POLL_S):
            self._mirror_all()
        deadline = time.monotonic() + CLOSE_S
        while not self._mirror_all() and time.monotonic() + POLL_S < deadline:
            time.sleep(POLL_S)

    def _mirror_all(self) -> bool:
        """Whether everything is there now."""
        with self._lock:
            trials = list(self._trials.values())
        was_away, failure = self._failure is not None, None
        for trial in trials:
            try:
                self._mirror(trial)
            except store_errors(InputError) as error:  # try again later
                if not was_away and failure is None:
                    _log.warning(
                        "MLflow at %s does not answer (%s); the sweep goes on, its points are "
                        "sent later",
                        without_password(self.uri),
                        first_line(error),
                    )
                failure = error
                trial.sender = None  # the run may have been deleted: look at it anew
        self._failure = failure
        return failure is None

    def _mirror(self, trial: _Trial) -> None:
        outcome = trial.outcome  # before the points are sent: it comes after the last of them
        if trial.sender is None:
            trial.sender = JournalSender(self.client, self._open(trial), trial.run_dir)
        trial.sender.send()
        run_id = trial.sender.run_id
        if outcome is not None:
            self._end(trial, outcome, run_id)
        # Artifacts come last: a store that does not take them delays no point and no status.
        if not trial.has_recipe:
            text = yaml.safe_dump(trial.recipe, sort_keys=False)
            self.client.log_text(run_id, text, "recipe.yaml")
            trial.has_recipe = True
        if outcome is not None:
            facts = machine_tags(trial.run_dir) | {CHECKPOINT: str(trial.run_dir)}
            self.client.log_text(run_id, facts_text(facts), f"{FOLDER}/{MACHINE}")
            update_state(trial.run_dir, closed=outcome.state)
            with self._lock:
                del self._trials[trial.number]

    def _end(self, trial: _Trial, outcome: Outcome, run_id: str) -> None:
        from mlflow.entities import Metric

        self.client.set_tag(run_id, STATE_TAG, outcome.state)
        if outcome.reason:
            self.client.set_tag(run_id, REASON_TAG, outcome.reason)
        elif REASON_TAG in self.client.get_run(run_id).data.tags:  # it was cut off before
            self.client.delete_tag(run_id, REASON_TAG)
        if outcome.value is not None:
            # The journal's time: a value that is sent twice is then the same point.
            when = int(read_epochs(trial.run_dir)[-1]["time"] * 1000)
            self.client.log_batch(run_id, metrics=[Metric("value", outcome.value, when, 0)])
            point = Metric("trial_value", outcome.value, when, trial.number)
            self.client.log_batch(self.sweep.run_id, metrics=[point])
        self.client.set_terminated(run_id, outcome.status)

    def _open(self, trial: _Trial) -> str:
        known = read_state(trial.run_dir).get("mlflow_run_id")
        tags = self.sweep.tags | {
            "heartseg.trial": str(trial.number),
            "heartseg.recipe": self.sweep.recipe_name(trial.number),
        }
        if known is None:
            its = {key: tags[key] for key in ("heartseg.sweep", "heartseg.trial")}
            delete_runs(self.client, self.sweep.experiment, its)
        run_id = open_run(
            self.client,
            experiment=self.sweep.experiment,
            name=trial_name(trial.number, trial.values),
            params=dict(trial.values),
            texts={},
            dataset=self.sweep.dataset,
            data_source=self.sweep.data_source,
            data_digest=self.sweep.data_digest,
            tags=tags | {"mlflow.parentRunId": self.sweep.run_id},
            run_id=known,
        )
        update_state(trial.run_dir, mlflow_run_id=run_id)
        return run_id


def trial_name(number: int, values: Values) -> str:
    """For example "trial 07 lr=0.0003 bs=12 size=192"."""
    parts = [f"trial {number:02d}"]
    for key, value in values.items():
        text = f"{value:.2g}" if isinstance(value, float) else str(value)
        parts.append(f"{SHORT.get(key, key.rpartition('.')[2])}={text}")
    return " ".join(parts)
