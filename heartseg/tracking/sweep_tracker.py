"""The MLflow runs of a sweep: a parent run, and a child run per trial.

A thread of the driver copies the records of the trials' folders to the store. The driver may be
killed, and the store may fail, at any time: after the same command has finished, nothing is
missing, duplicated or still RUNNING.
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
from heartseg.tracking.client import connect
from heartseg.tracking.faults import first_line, store_errors, without_password
from heartseg.tracking.run import Run
from heartseg.tracking.trial import Trial
from heartseg.training.journal import read_epochs
from heartseg.training.run_dir import update_state

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

POLL_S = 1.0
CLOSE_S = 30.0  # longest wait for the last metrics at the end of a sweep
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
        run: The run, once it is open.
        has_recipe: Whether the recipe has been logged.
    """

    trial: Trial
    ended: bool = False
    run: Run | None = None
    has_recipe: bool = False


@dataclass(frozen=True)
class SweepRun:
    """The parent run, and the properties that all runs of the sweep share.

    Attributes:
        run_id: Id of the parent run.
        experiment: Name of the experiment.
        dataset: Name of the dataset.
        data_source: Source of the prepared dataset.
        data_digest: MD5 of the prepared dataset.
        tags: Lineage tags. The tag "heartseg.sweep" identifies the sweep.
        records: Lineage files, from `heartseg.tracking.artifacts.collect_lineage_files`.
    """

    run_id: str
    experiment: str
    dataset: str
    data_source: str
    data_digest: str
    tags: dict[str, str] = field(default_factory=dict)
    records: dict[str, str] = field(default_factory=dict)

    def recipe_name(self, number: int) -> str:
        """Return the name of a trial's recipe, which is also the name of its model."""
        return f"{self.tags['heartseg.sweep']}/{number:02d}"


class SweepTracker:
    """Thread that copies trials to MLflow. Use it as a context manager.

    Args:
        uri: URI of the store.
        sweep: The sweep's parent run.
    """

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
        """Close a trial's run after all of its metrics are sent."""
        with self._lock:
            self._runs[trial.number].ended = True

    def __enter__(self) -> SweepTracker:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._closing.set()
        self._thread.join(CLOSE_S + 5)  # a single request can take longer than CLOSE_S
        if self._failure is not None:
            _log.warning(
                "MLflow at %s did not accept everything (%s); the same command sends the rest",
                without_password(self.uri),
                first_line(self._failure),
            )

    def log_results(self, plots: list[Path], table: Path, best: FrozenTrial | None) -> None:
        """Add the sweep's plots, its table of trials and its best trial to its run.

        Args:
            plots: Figures, for the artifact folder "plots".
            table: CSV file of the trials.
            best: Best complete trial, or None.
        """
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
        """End the sweep's parent run."""
        self._try(lambda: self.client.set_terminated(self.sweep.run_id, status))

    def _try(self, action: Callable[[], None]) -> None:
        """Call `action`, and only warn if the store fails: the same command can be repeated."""
        try:
            action()
        except store_errors() as error:
            _log.warning(
                "MLflow at %s did not accept the sweep's results (%s); they are on disk, and the "
                "same command sends them",
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
        """Copy all trials, and return whether the store now has everything."""
        with self._lock:
            entries = list(self._runs.values())
        failed_before, failure = self._failure is not None, None
        for entry in entries:
            try:
                self._mirror(entry)
            except store_errors(InputError) as error:  # try again later
                if not failed_before and failure is None:
                    _log.warning(
                        "MLflow at %s does not answer (%s); the sweep continues, and its metrics "
                        "are sent later",
                        without_password(self.uri),
                        first_line(error),
                    )
                failure = error
                entry.run = None  # the run may have been deleted, so open it again
        self._failure = failure
        return failure is None

    def _mirror(self, entry: _TrialRun) -> None:
        trial = entry.trial
        # Read before sending: if the trial has ended, the journal is complete.
        ended = entry.ended
        if entry.run is None:
            entry.run = self._open(trial)
        entry.run.send_epochs()
        if ended:
            self._end(trial, entry.run)
        # The artifact comes last, so that a failing artifact store delays no metric and no status.
        if not entry.has_recipe:
            recipe = {} if trial.recipe is None else trial.recipe.model_dump(mode="json")
            text = yaml.safe_dump(recipe, sort_keys=False)
            self.client.log_text(entry.run.run_id, text, "recipe.yaml")
            entry.has_recipe = True
        if ended:
            update_state(trial.run_dir, closed=trial.state)
            with self._lock:
                del self._runs[trial.number]

    def _end(self, trial: Trial, run: Run) -> None:
        from mlflow.entities import Metric

        for key, value in {STATE_TAG: trial.state, REASON_TAG: trial.reason}.items():
            self.client.set_tag(run.run_id, key, value)
        if trial.result is not None:
            # With the journal's time, a value that is sent twice is equal to the first one.
            when = int(read_epochs(trial.run_dir)[-1]["time"] * 1000)
            self.client.log_batch(run.run_id, metrics=[Metric("value", trial.result, when, 0)])
            point = Metric("trial_value", trial.result, when, trial.number)
            self.client.log_batch(self.sweep.run_id, metrics=[point])
        run.close(trial.mlflow_status)

    def _open(self, trial: Trial) -> Run:
        identity = {
            "heartseg.sweep": self.sweep.tags["heartseg.sweep"],
            "heartseg.trial": str(trial.number),
        }
        own_tags = {
            "heartseg.recipe": self.sweep.recipe_name(trial.number),
            "mlflow.parentRunId": self.sweep.run_id,
            CHECKPOINT_TAG: str(trial.run_dir),
        }
        return Run.open(
            self.client,
            trial.run_dir,
            identity,
            experiment=self.sweep.experiment,
            name=trial.name,
            params=dict(trial.values),
            texts={},
            dataset=self.sweep.dataset,
            data_source=self.sweep.data_source,
            data_digest=self.sweep.data_digest,
            tags=self.sweep.tags | identity | own_tags,
        )
