"""Sending of a run folder's records to its MLflow run, in order and each epoch once.

Metrics and overlays are sent by separate classes, so that a slow or failing artifact store delays
overlays only. Each class keeps its position in the journal in a file, so that nothing is lost or
sent twice after a driver was killed or an epoch was repeated.
"""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartseg.paths import write_text
from heartseg.training.journal import JOURNAL, parse_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

METRICS_SENT = "journal.sent"
OVERLAYS_SENT = "overlays.sent"
FILES = "artifacts"
"""Folder in the run folder whose content is logged as artifacts, with the same layout."""
FILES_SENT = "artifacts.sent"

_log = logging.getLogger(__name__)


class _JournalReader:
    """Reader of a run's journal that continues after the last line that was sent.

    Args:
        client: Client of the store.
        run_id: Id of the run.
        run_dir: Run folder with the journal.

    Attributes:
        position_file: Name of the file, in the run folder, with the position in the journal.
    """

    position_file: str

    def __init__(self, client: MlflowClient, run_id: str, run_dir: Path):
        self.client = client
        self.run_id = run_id
        self.run_dir = run_dir
        self._sent = self._read_sent()

    def unsent(self) -> Iterator[tuple[dict[str, Any], int]]:
        """Yield the complete journal lines of epochs not yet sent, each with its end in bytes."""
        try:
            stream = open(self.run_dir / JOURNAL, "rb")  # noqa: SIM115
        except FileNotFoundError:
            return
        with stream:
            end = stream.seek(self._sent["offset"])
            for line in stream:
                if not line.endswith(b"\n"):
                    return  # it is being written, or its writer was killed
                end += len(line)
                entry = parse_line(line)
                if entry is not None and entry["epoch"] > self._sent["epoch"]:
                    yield entry, end

    def _read_sent(self) -> dict[str, Any]:
        try:
            sent = json.loads((self.run_dir / self.position_file).read_text(encoding="utf-8"))
        except FileNotFoundError:
            sent = {}
        if sent.get("run_id") == self.run_id:
            return sent
        return {"run_id": self.run_id, "epoch": -1, "offset": 0}  # nothing was sent to this run

    def _write_sent(self, epoch: int, offset: int) -> None:
        self._sent = {"run_id": self.run_id, "epoch": epoch, "offset": offset}
        write_text(self.run_dir / self.position_file, json.dumps(self._sent))


class JournalSender(_JournalReader):
    """Sender of the metrics in a run's journal."""

    position_file = METRICS_SENT

    def send(self) -> None:
        """Send the metrics of epochs that were not sent yet.

        Errors of the store and of the network are raised as they are.
        """
        from mlflow.entities import Metric

        for entry, end in self.unsent():
            epoch, when = entry["epoch"], int(entry["time"] * 1000)
            # With the journal's timestamps, a metric that is sent again because the answer was
            # lost is equal to the first one, and the store keeps only one of them.
            metrics = [Metric(key, value, when, epoch) for key, value in entry["metrics"].items()]
            self.client.log_batch(self.run_id, metrics=metrics)
            self._write_sent(epoch, end)


class ArtifactSender(_JournalReader):
    """Sender of the files in the folder `FILES`, and of overlays of the sample predictions.

    Args:
        client: Client of the store.
        run_id: Id of the run.
        run_dir: Run folder with the journal.
        dataset: Name of the dataset, for the colours of overlays.
    """

    position_file = OVERLAYS_SENT

    def __init__(self, client: MlflowClient, run_id: str, run_dir: Path, dataset: str):
        super().__init__(client, run_id, run_dir)
        self.dataset = dataset

    def send(self) -> None:
        """Send the files, and the overlays of epochs that were not sent yet.

        Errors of the store and of the network are raised as they are.
        """
        self._send_files()
        for entry, end in self.unsent():
            epoch = entry["epoch"]
            figure = self._overlay(entry)
            if figure is not None:
                self.client.log_figure(self.run_id, figure, f"overlays/epoch_{epoch:03d}.png")
            self._write_sent(epoch, end)

    def _send_files(self) -> None:
        folder, mark = self.run_dir / FILES, self.run_dir / FILES_SENT
        if not folder.is_dir() or (mark.exists() and mark.read_text("utf-8") == self.run_id):
            return
        self.client.log_artifacts(self.run_id, str(folder))
        write_text(mark, self.run_id)

    def _overlay(self, entry: dict[str, Any]) -> Figure | None:
        """Return the figure of an epoch's sample predictions; None if there are none to read."""
        if entry.get("samples") is None:
            return None
        import numpy as np

        from heartseg.report.figures import overlay_grid

        path = self.run_dir / entry["samples"]
        try:
            with np.load(path) as samples:
                arrays = {key: samples[key] for key in samples.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:  # a truncated file
            _log.warning("no overlay from %s: %s", path, error)
            return None
        titles = [str(case) for case in arrays["case_ids"]]
        images, masks, predictions = (arrays[key] for key in ("images", "masks", "predictions"))
        return overlay_grid(images, masks, predictions, self.dataset, titles)
