"""The tracker: follows a training's journal and sends it to MLflow.

The training appends one line per epoch to journal.jsonl in its run folder and waits for nobody.
The tracker sends what is new, now or when the server answers again: one thread of the driver sends
the points, another one overlays and files, for which the points never wait.
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
from heartseg.tracking.client import TRAINING_KEY, configure_mlflow, delete_runs, open_run
from heartseg.tracking.faults import (
    explain,
    first_line,
    store_errors,
    without_password,
    writing_to_store,
)
from heartseg.tracking.sender import ArtifactSender, JournalSender
from heartseg.training.journal import JOURNAL, read_epochs
from heartseg.training.machine import machine_tags
from heartseg.training.run_dir import read_state, update_state

if TYPE_CHECKING:
    from mlflow import MlflowClient

POLL_S = 1.0  # between two looks at the journal
MAX_WAIT_S = 60.0  # longest pause between two attempts while the server does not answer
CLOSE_S = 20.0  # the end of a training waits so long for the last points

_log = logging.getLogger(__name__)


def open_training_run(client: MlflowClient, run_dir: Path) -> str:
    """Start the MLflow run of a training, or continue the one it had; its id is kept in run_dir.

    Args:
        client: of the store.
        run_dir: the run folder, whose state holds under "opening" what `open_run` takes.
    """
    state = read_state(run_dir)
    opening, known = state["opening"], state.get("mlflow_run_id")
    if known is None:  # a killed driver may have opened one and not noted its id
        key = opening["tags"][TRAINING_KEY]
        delete_runs(client, opening["experiment"], {TRAINING_KEY: key})
    run_id = open_run(client, **opening, run_id=known)
    update_state(run_dir, mlflow_run_id=run_id)
    return run_id


def send_run(client: MlflowClient, run_dir: Path) -> str:
    """Send all that a training has kept, and end its run as it ended; the status.

    Raises:
        InputError: the store does not answer any more.
    """
    state = read_state(run_dir)
    with writing_to_store(client, f"what {run_dir} keeps"):
        run_id = open_training_run(client, run_dir)
        JournalSender(client, run_id, run_dir).send()
        _end_run(client, run_id, run_dir, state["status"])
        ArtifactSender(client, run_id, run_dir, state["opening"]["dataset"]).send()
    update_state(run_dir, sent=True, finished=state["status"] == "FINISHED")
    return state["status"]


def _end_run(client: MlflowClient, run_id: str, run_dir: Path, status: str) -> None:
    """The last of a run: on what it was trained, which is known by now, and how it ended."""
    for key, value in machine_tags(run_dir).items():
        client.set_tag(run_id, key, value)
    client.set_terminated(run_id, status)


class _Sending(threading.Thread):
    """Calls a function again and again; while the store does not answer, in longer intervals.

    An error that is not the store's ends the thread with its traceback.

    Args:
        name: of the thread.
        send: what to call, which raises an error of the store if it does not answer.
        finish: the last call; repeated for `CLOSE_S` at most.
        away: called with the error when the store begins not to answer.
        back: called when it answers again.

    Attributes:
        done: whether `finish` has succeeded.
        failure: the error of the latest call, if it had one.
    """

    def __init__(
        self,
        name: str,
        send: Callable[[], object],
        finish: Callable[[], object],
        away: Callable[[Exception], object],
        back: Callable[[], object],
    ):
        super().__init__(name=name, daemon=True)
        self._send, self._finish, self._away, self._back = send, finish, away, back
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
                    self._back()
            else:
                wait = min(2 * wait, MAX_WAIT_S)
                if before is None and self.failure is not None:
                    self._away(self.failure)
        deadline = time.monotonic() + CLOSE_S
        while not (self.done or self._try(self._end)) and time.monotonic() + POLL_S < deadline:
            time.sleep(POLL_S)

    def close(self) -> None:
        """Make the last call; `wait` waits for it."""
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
    """Sends a training's journal to its MLflow run, in order, each epoch once.

    Use it as a context manager: the run ends FINISHED, FAILED after an exception, KILLED after
    an interruption or a notice to end. While the server does not answer, the journal keeps the
    points; they are sent when it answers again, or when a tracker is next opened on the same run
    folder.

    Args:
        run_id: the run, from `open_training_run`; None: it is opened when the store answers.
        run_dir: the run folder, with the journal.
        uri: the store.
        dataset: the dataset's name, for the colours of overlays.
        system_metrics: also log the CPU, memory, disk, network and GPU of this machine.

    Attributes:
        arrived: after the end, whether the store has everything, the run's status too.
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
        self.sender: JournalSender | None = None
        if run_id is not None:
            self.sender = JournalSender(self.client, run_id, run_dir)
        self.system_metrics = system_metrics
        self._monitor: Any = None
        self._status = "FINISHED"
        self._points = _Sending("points", self._send, self._finish, self._away, self._back)
        self._artifacts = _Sending(
            "artifacts", self._send_artifacts, self._finish_artifacts, self._delayed, lambda: None
        )
        self._artifact_sender: ArtifactSender | None = None

    @property
    def arrived(self) -> bool:
        return self._points.done and self._artifacts.done

    def start(self) -> None:
        """Follow the journal from where the last tracker of this run stopped."""
        if self.sender is not None:
            with suppress(*store_errors()):
                self._start_monitor()
        self._points.start()
        self._artifacts.start()

    def close(self, status: str) -> bool:
        """Send the rest and end the run; what cannot be sent now stays in the run folder.

        Args:
            status: FINISHED, FAILED or KILLED.

        Returns:
            Whether everything has arrived, the status too.
        """
        self._status = status
        deadline = time.monotonic() + CLOSE_S + 5  # a request may hang for longer than that
        for thread in (self._points, self._artifacts):
            thread.close()
        for thread in (self._points, self._artifacts):
            thread.join(max(0.0, deadline - time.monotonic()))
        if not self._points.done:
            _log.warning(
                "MLflow at %s did not take everything (%s). The %d epoch(s) not yet sent are kept "
                "in %s; the same command, or `heartseg sync`, sends them when the server answers",
                without_password(self.uri),
                _said(self._points),
                len(read_epochs(self.run_dir))
                if self.sender is None
                else sum(1 for _ in self.sender.unsent()),
                self.run_dir / JOURNAL,
            )
        elif not self._artifacts.done:
            _log.warning(
                "MLflow at %s has all points, but did not take all overlays and files (%s). They "
                "are kept in %s; the same command, or `heartseg sync`, sends them",
                without_password(self.uri),
                _said(self._artifacts),
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
            asked = issubclass(kind, KeyboardInterrupt | Stopped)
            self.close("KILLED" if asked else "FAILED")

    def _away(self, error: Exception) -> None:
        _log.warning(
            "%s. The training goes on; its points are kept in %s and sent later",
            error if isinstance(error, InputError) else explain(error, self.uri),
            self.run_dir / JOURNAL,
        )

    def _back(self) -> None:
        _log.warning("MLflow answers again; its points are up to date")
        with suppress(*store_errors()):
            self._start_monitor()  # MLflow's own monitor ended with the first failure

    def _delayed(self, error: Exception) -> None:
        _log.warning(
            "MLflow at %s does not take overlays and files (%s); they are sent later",
            without_password(self.uri),
            first_line(error),
        )

    def _send(self) -> JournalSender:
        if self.sender is None:
            run_id = open_training_run(self.client, self.run_dir)
            self.sender = JournalSender(self.client, run_id, self.run_dir)
            self._start_monitor()
        self.sender.send()
        return self.sender

    def _finish(self) -> None:
        sender = self._send()
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None
        _end_run(self.client, sender.run_id, self.run_dir, self._status)

    def _send_artifacts(self) -> None:
        if self.sender is None:
            return  # the run is not open yet
        if self._artifact_sender is None:
            self._artifact_sender = ArtifactSender(
                self.client, self.sender.run_id, self.run_dir, self.dataset
            )
        self._artifact_sender.send()

    def _finish_artifacts(self) -> None:
        if self.sender is None:
            raise InputError("the run is not open yet")
        self._send_artifacts()

    def _start_monitor(self) -> None:
        if not self.system_metrics or self.sender is None:
            return
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        if self._monitor is not None:
            self._monitor.finish()
        self._monitor = SystemMetricsMonitor(
            self.sender.run_id, resume_logging=True, tracking_uri=self.uri
        )
        self._monitor.start()


def _said(thread: _Sending) -> str:
    return "no answer" if thread.failure is None else first_line(thread.failure)
