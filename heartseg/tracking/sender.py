"""Sends a run folder's journal to its MLflow run: in order, each epoch once.

What was sent stands in journal.sent, so neither a killed driver nor a repeated epoch loses or
doubles a point.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartseg.paths import write_whole
from heartseg.training.journal import JOURNAL, parse_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

SENT = "journal.sent"

_log = logging.getLogger(__name__)


class JournalSender:
    """Sends what is new in one run's journal.

    Args:
        client: of the store.
        run_id: the run, from `heartseg.tracking.mlflow.open_run`.
        run_dir: the run folder, with the journal.
        dataset: the dataset's name, for the colours of overlays.
    """

    def __init__(self, client: MlflowClient, run_id: str, run_dir: Path, dataset: str):
        self.client = client
        self.run_id = run_id
        self.run_dir = run_dir
        self.dataset = dataset
        self._sent = self._read_sent()

    def send(self) -> None:
        """Send what is new; raises whatever store and network raise."""
        from mlflow.entities import Metric

        for entry, end in self.unsent():
            epoch, when = entry["epoch"], int(entry["time"] * 1000)
            figure = self._overlay(entry)
            # The timestamps are the journal's: a point that arrived although its answer got
            # lost is the same point when it is sent again, and the store keeps one.
            metrics = [Metric(key, value, when, epoch) for key, value in entry["metrics"].items()]
            self.client.log_batch(self.run_id, metrics=metrics)
            if figure is not None:
                self.client.log_figure(self.run_id, figure, f"overlays/epoch_{epoch:03d}.png")
            self._write_sent(epoch, end)

    def unsent(self) -> Iterator[tuple[dict[str, Any], int]]:
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
        write_whole(self.run_dir / SENT, json.dumps(self._sent))
