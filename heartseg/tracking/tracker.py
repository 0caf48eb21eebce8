"""The tracker: follows a training's journal and sends it to MLflow.

The training appends one line per epoch to journal.jsonl in its run folder and waits for nobody.
The tracker, a thread of the driver, sends what is new, now or when the server answers again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from heartseg.errors import InputError, Stopped
from heartseg.tracking.mlflow import (
    TRAINING_KEY,
    delete_runs,
    first_line,
    open_run,
    quiet,
    without_password,
)
from heartseg.tracking.sender import JournalSender
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
    try:
        run_id = open_training_run(client, run_dir)
        JournalSender(client, run_id, run_dir, state["opening"]["dataset"]).send()
        _end_run(client, run_id, run_dir, state["status"])
    except Exception as error:  # whatever store and network raise
        raise InputError(
            f"MLflow did not take all of {run_dir} ({first_line(error)}); run `heartseg sync` again"
        ) from None
    update_state(run_dir, sent=True, finished=state["status"] == "FINISHED")
    return state["status"]


def _end_run(client: MlflowClient, run_id: str, run_dir: Path, status: str) -> None:
    """The last of a run: on what it was trained, which is known by now, and how it ended."""
    for key, value in machine_tags(run_dir).items():
        client.set_tag(run_id, key, value)
    client.set_terminated(run_id, status)


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
        quiet()
        from mlflow import MlflowClient

        self.run_dir = run_dir
        self.uri = uri
        self.dataset = dataset
        self.client = MlflowClient(uri)
        self.sender: JournalSender | None = None
        if run_id is not None:
            self.sender = JournalSender(self.client, run_id, run_dir, dataset)
        self.system_metrics = system_metrics
        self._monitor: Any = None
        self._closing = threading.Event()
        self._status = "FINISHED"
        self.arrived = False
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._follow, name="tracker", daemon=True)

    def start(self) -> None:
        """Follow the journal from where the last tracker of this run stopped."""
        if self.sender is not None:
            self._try(self._start_monitor)
        self._thread.start()

    def close(self, status: str) -> bool:
        """Send the rest and end the run; points that cannot be sent now stay in the journal.

        Args:
            status: FINISHED, FAILED or KILLED.

        Returns:
            Whether everything has arrived, the status too.
        """
        self._status = status
        self._closing.set()
        if self._thread.ident is None:
            self._thread.start()
        self._thread.join(CLOSE_S + 5)  # a request may hang for longer than that
        if not self.arrived:
            _log.warning(
                "MLflow at %s did not take everything (%s). The %d epoch(s) not yet sent are kept "
                "in %s; the same command, or `heartseg sync`, sends them when the server answers",
                without_password(self.uri),
                first_line(self._failure) if self._failure else "no answer",
                len(read_epochs(self.run_dir))
                if self.sender is None
                else sum(1 for _ in self.sender.unsent()),
                self.run_dir / JOURNAL,
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

    def _follow(self) -> None:
        wait = POLL_S
        while not self._closing.wait(wait):
            answered = self._failure is None
            if self._try(self._send):
                wait = POLL_S
                if not answered:
                    _log.warning("MLflow answers again; its points are up to date")
                    # MLflow's own monitor ended with the first failure.
                    self._try(self._start_monitor)
            else:
                wait = min(2 * wait, MAX_WAIT_S)
                if answered:
                    _log.warning(
                        "MLflow at %s does not answer (%s); the training goes on, its points are "
                        "kept in %s and sent later",
                        without_password(self.uri),
                        first_line(self._failure) if self._failure else "",
                        self.run_dir / JOURNAL,
                    )
        deadline = time.monotonic() + CLOSE_S
        while not self._try(self._finish) and time.monotonic() + POLL_S < deadline:
            time.sleep(POLL_S)

    def _try(self, action: Callable[[], object]) -> bool:
        try:
            action()
        except Exception as error:  # whatever store and network raise: try again later
            self._failure = error
            return False
        self._failure = None
        return True

    def _send(self) -> JournalSender:
        if self.sender is None:
            run_id = open_training_run(self.client, self.run_dir)
            self.sender = JournalSender(self.client, run_id, self.run_dir, self.dataset)
            self._start_monitor()
        self.sender.send()
        return self.sender

    def _finish(self) -> None:
        sender = self._send()
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None
        _end_run(self.client, sender.run_id, self.run_dir, self._status)
        self.arrived = True

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
