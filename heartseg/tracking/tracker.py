"""The tracker: follows a training's journal and sends it to MLflow.

The training appends one line per epoch to journal.jsonl in its run folder and waits for nobody.
The tracker, a thread of the driver, sends what is new. What was sent stands in journal.sent, so
an unreachable server, a killed driver or a repeated epoch neither loses nor doubles a point.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from heartseg.tracking.mlflow import first_line, quiet, without_password
from heartseg.training.journal import JOURNAL, parse_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SENT = "journal.sent"

POLL_S = 1.0  # between two looks at the journal
MAX_WAIT_S = 60.0  # longest pause between two attempts while the server does not answer
CLOSE_S = 20.0  # the end of a training waits so long for the last points

_log = logging.getLogger(__name__)


class RunTracker:
    """Sends a training's journal to its MLflow run, in order, each epoch once.

    Use it as a context manager: the run ends FINISHED, FAILED after an exception, KILLED after
    an interruption. While the server does not answer, the journal keeps the points; they are
    sent when it answers again, or when a tracker is next opened on the same run folder.

    Args:
        run_id: the run, from `open_run`.
        run_dir: the run folder, with the journal.
        uri: the store.
        dataset: the dataset's name, for the colours of overlays.
        system_metrics: also log the CPU, memory, disk, network and GPU of this machine.

    Attributes:
        arrived: after the end, whether the store has everything, the run's status too.
    """

    def __init__(
        self, run_id: str, run_dir: Path, uri: str, dataset: str, *, system_metrics: bool = False
    ):
        quiet()
        from mlflow import MlflowClient

        self.run_id = run_id
        self.run_dir = run_dir
        self.uri = uri
        self.dataset = dataset
        self.client = MlflowClient(uri)
        self.system_metrics = system_metrics
        self._monitor: Any = None
        self._sent = self._read_sent()
        self._closing = threading.Event()
        self._status = "FINISHED"
        self.arrived = False
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._follow, name="tracker", daemon=True)

    def start(self) -> None:
        """Follow the journal from where the last tracker of this run stopped."""
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
                "in %s; the same command sends them when the server answers",
                without_password(self.uri),
                first_line(self._failure) if self._failure else "no answer",
                sum(1 for _ in self._unsent()),
                self.run_dir / JOURNAL,
            )
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
            self.close("KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED")

    def _follow(self) -> None:
        wait = POLL_S
        while not self._closing.wait(wait):
            answered = self._failure is None
            if self._try(self._send_new):
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

    def _try(self, action: Callable[[], None]) -> bool:
        try:
            action()
        except Exception as error:  # whatever store and network raise: try again later
            self._failure = error
            return False
        self._failure = None
        return True

    def _finish(self) -> None:
        self._send_new()
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None
        self.client.set_terminated(self.run_id, self._status)
        self.arrived = True

    def _start_monitor(self) -> None:
        if not self.system_metrics:
            return
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        if self._monitor is not None:
            self._monitor.finish()
        self._monitor = SystemMetricsMonitor(
            self.run_id, resume_logging=True, tracking_uri=self.uri
        )
        self._monitor.start()

    def _send_new(self) -> None:
        from mlflow.entities import Metric

        for entry, end in self._unsent():
            epoch, when = entry["epoch"], int(entry["time"] * 1000)
            figure = self._overlay(entry)
            # The timestamps are the journal's: a point that arrived although its answer got
            # lost is the same point when it is sent again, and the store keeps one.
            metrics = [Metric(key, value, when, epoch) for key, value in entry["metrics"].items()]
            self.client.log_batch(self.run_id, metrics=metrics)
            if figure is not None:
                self.client.log_figure(self.run_id, figure, f"overlays/epoch_{epoch:03d}.png")
            self._write_sent(epoch, end)

    def _unsent(self) -> Iterator[tuple[dict[str, Any], int]]:
        """Whole journal lines of epochs not yet sent, each with the offset of its end."""
        try:
            stream = open(self.run_dir / JOURNAL, "rb")  # noqa: SIM115
        except FileNotFoundError:
            return
        with stream:
            end = stream.seek(self._sent["offset"])
            for line in stream:
                if not line.endswith(b"\n"):
                    return  # still being written, or its writer was killed
                end += len(line)
                entry = parse_line(line)
                if entry is not None and entry["epoch"] > self._sent["epoch"]:
                    yield entry, end

    def _overlay(self, entry: dict[str, Any]) -> Figure | None:
        """The figure of an epoch's sample predictions; unreadable ones are passed over."""
        if entry.get("samples") is None:
            return None
        import numpy as np

        from heartseg.report.figures import overlay_grid

        path = self.run_dir / entry["samples"]
        try:
            with np.load(path) as samples:
                images, masks, predictions = (
                    samples[key] for key in ("images", "masks", "predictions")
                )
                titles = [str(case) for case in samples["case_ids"]]
            return overlay_grid(images, masks, predictions, self.dataset, titles)
        except Exception as error:  # a cut-off file fails in many ways; the points matter more
            _log.warning("no overlay from %s: %s", path, error)
            return None

    def _read_sent(self) -> dict[str, Any]:
        try:
            sent = json.loads((self.run_dir / SENT).read_text(encoding="utf-8"))
        except FileNotFoundError:
            sent = {}
        if sent.get("run_id") == self.run_id:
            return sent
        return {"run_id": self.run_id, "epoch": -1, "offset": 0}  # nothing, or to another run

    def _write_sent(self, epoch: int, offset: int) -> None:
        self._sent = {"run_id": self.run_id, "epoch": epoch, "offset": offset}
        temporary = self.run_dir / f".{SENT}.tmp"
        temporary.write_text(json.dumps(self._sent), encoding="utf-8")
        os.replace(temporary, self.run_dir / SENT)
