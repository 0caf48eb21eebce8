"""The tracker, which follows a training's journal and sends it to MLflow.

The training appends one line per epoch to journal.jsonl in its run folder and does not wait for the
store. The tracker sends new lines at once, or when the server answers again. One thread of the
driver sends the metrics and another one sends overlays and files, so that metrics are never
delayed by files.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from heartseg.errors import InputError, Stopped
from heartseg.tracking.client import TRAINING_KEY, configure_mlflow
from heartseg.tracking.faults import (
    explain,
    first_line,
    store_errors,
    without_password,
    writing_to_store,
)
from heartseg.tracking.run import Run
from heartseg.tracking.sender import ArtifactSender
from heartseg.training.journal import JOURNAL, read_epochs
from heartseg.training.run_dir import read_state, update_state

if TYPE_CHECKING:
    from mlflow import MlflowClient

POLL_S = 1.0  # between two reads of the journal
MAX_WAIT_S = 60.0  # longest pause between two attempts while the server does not answer
CLOSE_S = 20.0  # longest wait for the last metrics at the end of a training

_log = logging.getLogger(__name__)


def open_training_run(client: MlflowClient, run_dir: Path) -> Run:
    """Start the MLflow run of a training, or continue it if it was started before.

    Args:
        client: Client of the store.
        run_dir: Run folder, whose state contains the arguments of `open_run` as "opening".
    """
    opening = read_state(run_dir)["opening"]
    identity = {TRAINING_KEY: opening["tags"][TRAINING_KEY]}
    return Run.open(client, run_dir, identity, **opening)


def send_run(client: MlflowClient, run_dir: Path) -> str:
    """Send everything that a training has kept in its run folder, and end its MLflow run.

    Returns:
        The status of the training: FINISHED, FAILED or KILLED.

    Raises:
        InputError: If the store does not answer.
    """
    state = read_state(run_dir)
    with writing_to_store(client, f"the content of {run_dir}"):
        run = open_training_run(client, run_dir)
        run.send_epochs()
        run.close(state["status"])
        ArtifactSender(client, run.run_id, run_dir, state["opening"]["dataset"]).send()
    update_state(run_dir, sent=True, finished=state["status"] == "FINISHED")
    return state["status"]


class _SendThread(threading.Thread):
    """Thread that calls a function repeatedly, less often while the store does not answer.

    An error that does not come from the store ends the thread with its traceback.

    Args:
        name: Name of the thread.
        send: Function to call. It raises an error of the store if the store does not answer.
        finish: Function for the last call, which is repeated for `CLOSE_S` at most.
        on_failure: Function that gets the first error after a call that succeeded.
        on_recovery: Function to call when the store answers again.

    Attributes:
        done: Whether `finish` has succeeded.
        failure: Error of the last call, or None.
    """

    def __init__(
        self,
        name: str,
        send: Callable[[], object],
        finish: Callable[[], object],
        on_failure: Callable[[Exception], object],
        on_recovery: Callable[[], object],
    ):
        super().__init__(name=name, daemon=True)
        self._send, self._finish = send, finish
        self._on_failure, self._on_recovery = on_failure, on_recovery
        self._closing = threading.Event()
        self.done = False
        self.failure: Exception | None = None

    def run(self) -> None:
        wait = POLL_S
        while not self._closing.wait(wait):
            before = self.failure
            if self._try(self._send):
                wait = POLL_S
                if before is not None:
                    self._on_recovery()
            else:
                wait = min(2 * wait, MAX_WAIT_S)
                if before is None and self.failure is not None:
                    self._on_failure(self.failure)
        deadline = time.monotonic() + CLOSE_S
        while not (self.done or self._try(self._end)) and time.monotonic() + POLL_S < deadline:
            time.sleep(POLL_S)

    def close(self) -> None:
        """Let the thread make the last call and end; `join` waits for it."""
        self._closing.set()
        if self.ident is None:
            self.start()

    def _end(self) -> None:
        self._finish()
        self.done = True

    def _try(self, action: Callable[[], object]) -> bool:
        try:
            action()
        except store_errors(InputError) as error:
            self.failure = error
            return False
        except Exception as error:
            self.failure = error
            raise
        self.failure = None
        return True


class RunTracker:
    """Sends a training's journal to its MLflow run, in order and each epoch once.

    Use it as a context manager. The run ends as FINISHED, as FAILED after an exception, and as
    KILLED after an interruption or SIGTERM. While the server does not answer, the journal keeps
    the metrics. They are sent when the server answers again, or by the next tracker of the same
    run folder.

    Args:
        run_id: Id of the run, or None to open it when the store answers.
        run_dir: Run folder with the journal.
        uri: URI of the store.
        dataset: Name of the dataset, for the colours of overlays.
        system_metrics: Whether to log CPU, memory, disk, network and GPU of this machine.
    """

    def __init__(
        self,
        run_id: str | None,
        run_dir: Path,
        uri: str,
        dataset: str,
        *,
        system_metrics: bool = False,
    ):
        configure_mlflow()
        from mlflow import MlflowClient

        self.run_dir = run_dir
        self.uri = uri
        self.dataset = dataset
        self.client = MlflowClient(uri)
        self.run = None if run_id is None else Run(self.client, run_id, run_dir)
        self.system_metrics = system_metrics
        self._monitor: Any = None
        self._status = "FINISHED"
        self._metrics = _SendThread(
            "metrics",
            self._send_metrics,
            self._finish_metrics,
            self._warn_metrics_delayed,
            self._resume_metrics,
        )
        self._artifacts = _SendThread(
            "artifacts",
            self._send_artifacts,
            self._finish_artifacts,
            self._warn_artifacts_delayed,
            lambda: None,
        )
        self._artifact_sender: ArtifactSender | None = None

    @property
    def arrived(self) -> bool:
        """Whether, after the end, the store has all metrics and files and the run's status."""
        return self._metrics.done and self._artifacts.done

    def start(self) -> None:
        """Follow the journal from the line at which the last tracker of this run stopped."""
        if self.run is not None:
            with suppress(*store_errors()):
                self._start_monitor()
        self._metrics.start()
        self._artifacts.start()

    def close(self, status: str) -> bool:
        """Send the rest and end the run. Anything that cannot be sent stays in the run folder.

        Args:
            status: FINISHED, FAILED or KILLED.

        Returns:
            Whether the store has everything, including the status.
        """
        self._status = status
        deadline = time.monotonic() + CLOSE_S + 5  # a single request can take longer than CLOSE_S
        for thread in (self._metrics, self._artifacts):
            thread.close()
        for thread in (self._metrics, self._artifacts):
            thread.join(max(0.0, deadline - time.monotonic()))
        if not self._metrics.done:
            _log.warning(
                "MLflow at %s did not accept everything (%s). The %d epoch(s) not yet sent are "
                "kept in %s; run the same command or `heartseg sync` to send them when the server "
                "answers",
                without_password(self.uri),
                _reason(self._metrics),
                len(read_epochs(self.run_dir))
                if self.run is None
                else sum(1 for _ in self.run.journal.unsent()),
                self.run_dir / JOURNAL,
            )
        elif not self._artifacts.done:
            _log.warning(
                "MLflow at %s has all metrics, but did not accept all overlays and files (%s). "
                "They are kept in %s; run the same command or `heartseg sync` to send them",
                without_password(self.uri),
                _reason(self._artifacts),
                self.run_dir,
            )
        update_state(self.run_dir, status=status, sent=self.arrived)
        return self.arrived

    def __enter__(self) -> RunTracker:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close("FINISHED")
        else:
            stopped = issubclass(kind, KeyboardInterrupt | Stopped)
            self.close("KILLED" if stopped else "FAILED")

    def _warn_metrics_delayed(self, error: Exception) -> None:
        _log.warning(
            "%s. The training continues; its metrics are kept in %s and sent later",
            error if isinstance(error, InputError) else explain(error, self.uri),
            self.run_dir / JOURNAL,
        )

    def _resume_metrics(self) -> None:
        _log.warning("MLflow answers again; its metrics are up to date")
        with suppress(*store_errors()):
            self._start_monitor()  # MLflow's own monitor ended with the first failure

    def _warn_artifacts_delayed(self, error: Exception) -> None:
        _log.warning(
            "MLflow at %s does not accept overlays and files (%s); they are sent later",
            without_password(self.uri),
            first_line(error),
        )

    def _send_metrics(self) -> Run:
        if self.run is None:
            self.run = open_training_run(self.client, self.run_dir)
            self._start_monitor()
        self.run.send_epochs()
        return self.run

    def _finish_metrics(self) -> None:
        run = self._send_metrics()
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None
        run.close(self._status)

    def _send_artifacts(self) -> None:
        if self.run is None:
            return  # the thread of the metrics opens it
        if self._artifact_sender is None:
            self._artifact_sender = ArtifactSender(
                self.client, self.run.run_id, self.run_dir, self.dataset
            )
        self._artifact_sender.send()

    def _finish_artifacts(self) -> None:
        if self.run is None:
            raise InputError("the run is not open yet")
        self._send_artifacts()

    def _start_monitor(self) -> None:
        if not self.system_metrics or self.run is None:
            return
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        if self._monitor is not None:
            self._monitor.finish()
        self._monitor = SystemMetricsMonitor(
            self.run.run_id, resume_logging=True, tracking_uri=self.uri
        )
        self._monitor.start()


def _reason(thread: _SendThread) -> str:
    return "no answer" if thread.failure is None else first_line(thread.failure)
