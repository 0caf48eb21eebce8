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
from typing import TYPE_CHECKING

import yaml

from heartseg.errors import InputError
from heartseg.tracking.client import connect, delete_runs, open_run
from heartseg.tracking.faults import first_line, store_errors, without_password
from heartseg.tracking.sender import JournalSender
from heartseg.tracking.trial import Trial
from heartseg.training.journal import read_epochs
from heartseg.training.machine import machine_tags
from heartseg.training.run_dir import read_state, update_state

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

POLL_S = 1.0
CLOSE_S = 30.0  # the end of a sweep waits so long for the last points
STATE_TAG = "heartseg.state"
REASON_TAG = "heartseg.reason"
CHECKPOINT_TAG = "heartseg.checkpoint"
"""Folder of the trial's checkpoint and journal."""

_log = logging.getLogger(__name__)


@dataclass
class _TrialRun:
    """The MLflow run of a trial.

    Attributes:
        trial: The trial.
        ended: Whether the trial has ended. Its state and value do not change any more then.
        sender: Sender of the trial's journal, once the run is open.
        has_recipe: Whether the recipe has been logged.
    """

    trial: Trial
    ended: bool = False
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
        self._runs: dict[int, _TrialRun] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._follow, name="sweep tracker", daemon=True)

    def begin(self, trial: Trial) -> None:
        """Open a trial's run, or continue it."""
        with self._lock:
            self._runs[trial.number] = _TrialRun(trial)

    def end(self, trial: Trial) -> None:
        """Close a trial's run when all its points are there."""
        with self._lock:
            self._runs[trial.number].ended = True

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
            runs = list(self._runs.values())
        was_away, failure = self._failure is not None, None
        for run in runs:
            try:
                self._mirror(run)
            except store_errors(InputError) as error:  # try again later
                if not was_away and failure is None:
                    _log.warning(
                        "MLflow at %s does not answer (%s); the sweep goes on, its points are "
                        "sent later",
                        without_password(self.uri),
                        first_line(error),
                    )
                failure = error
                run.sender = None  # the run may have been deleted: look at it anew
        self._failure = failure
        return failure is None

    def _mirror(self, run: _TrialRun) -> None:
        trial = run.trial
        ended = run.ended  # before the points are sent: it comes after the last of them
        if run.sender is None:
            run.sender = JournalSender(self.client, self._open(trial), trial.run_dir)
        run.sender.send()
        run_id = run.sender.run_id
        if ended:
            self._end(trial, run_id)
        # The artifact comes last: a store that does not take it delays no point and no status.
        if not run.has_recipe:
            recipe = {} if trial.recipe is None else trial.recipe.model_dump(mode="json")
            self.client.log_text(run_id, yaml.safe_dump(recipe, sort_keys=False), "recipe.yaml")
            run.has_recipe = True
        if ended:
            update_state(trial.run_dir, closed=trial.state)
            with self._lock:
                del self._runs[trial.number]

    def _end(self, trial: Trial, run_id: str) -> None:
        from mlflow.entities import Metric

        tags = machine_tags(trial.run_dir) | {STATE_TAG: trial.state, REASON_TAG: trial.reason}
        for key, value in tags.items():
            self.client.set_tag(run_id, key, value)
        if trial.result is not None:
            # The journal's time: a value that is sent twice is then the same point.
            when = int(read_epochs(trial.run_dir)[-1]["time"] * 1000)
            self.client.log_batch(run_id, metrics=[Metric("value", trial.result, when, 0)])
            point = Metric("trial_value", trial.result, when, trial.number)
            self.client.log_batch(self.sweep.run_id, metrics=[point])
        self.client.set_terminated(run_id, trial.mlflow_status)

    def _open(self, trial: Trial) -> str:
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
            name=trial.name,
            params=dict(trial.values),
            texts={},
            dataset=self.sweep.dataset,
            data_source=self.sweep.data_source,
            data_digest=self.sweep.data_digest,
            tags=tags
            | {"mlflow.parentRunId": self.sweep.run_id, CHECKPOINT_TAG: str(trial.run_dir)},
            run_id=known,
        )
        update_state(trial.run_dir, mlflow_run_id=run_id)
        return run_id
