"""Sends what a run folder holds to its MLflow run: in order, each epoch once.

Points and pictures go separate ways, so that a slow or failing artifact store delays pictures
only. How far each has come is kept in a file of its own, so that neither a killed driver nor a
repeated epoch loses or doubles anything.
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

SENT = "journal.sent"
OVERLAYS_SENT = "overlays.sent"
FILES = "artifacts"
"""Folder in the run folder whose content becomes artifacts of the run, as it lies there."""
FILES_SENT = "artifacts.sent"

_log = logging.getLogger(__name__)


class _Reader:
    """Reads on in one run's journal from where it stopped.

    Args:
        client: of the store.
        run_id: the run, from `heartseg.tracking.client.open_run`.
        run_dir: the run folder, with the journal.
    """

    mark: str

    def __init__(self, client: MlflowClient, run_id: str, run_dir: Path):
        self.client = client
        self.run_id = run_id
        self.run_dir = run_dir
        self._sent = self._read_sent()

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

    def _read_sent(self) -> dict[str, Any]:
        try:
            sent = json.loads((self.run_dir / self.mark).read_text(encoding="utf-8"))
        except FileNotFoundError:
            sent = {}
        if sent.get("run_id") == self.run_id:
            return sent
        return {"run_id": self.run_id, "epoch": -1, "offset": 0}  # nothing, or to another run

    def _write_sent(self, epoch: int, offset: int) -> None:
        self._sent = {"run_id": self.run_id, "epoch": epoch, "offset": offset}
        write_text(self.run_dir / self.mark, json.dumps(self._sent))


class JournalSender(_Reader):
    """Sends the points of what is new in one run's journal."""

    mark = SENT

    def send(self) -> None:
        """Send what is new; raises whatever store and network raise."""
        from mlflow.entities import Metric

        for entry, end in self.unsent():
            epoch, when = entry["epoch"], int(entry["time"] * 1000)
            # The timestamps are the journal's: a point that arrived although its answer got
            # lost is the same point when it is sent again, and the store keeps one.
            metrics = [Metric(key, value, when, epoch) for key, value in entry["metrics"].items()]
            self.client.log_batch(self.run_id, metrics=metrics)
            self._write_sent(epoch, end)


class ArtifactSender(_Reader):
    """Sends the files of the run folder that are artifacts, and overlays of the sample predictions.

    Args:
        client: of the store.
        run_id: the run, from `heartseg.tracking.client.open_run`.
        run_dir: the run folder, with the journal.
        dataset: the dataset's name, for the colours of overlays.
    """

    mark = OVERLAYS_SENT

    def __init__(self, client: MlflowClient, run_id: str, run_dir: Path, dataset: str):
        super().__init__(client, run_id, run_dir)
        self.dataset = dataset

    def send(self) -> None:
        """Send what is new; raises whatever store and network raise."""
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
        """The figure of an epoch's sample predictions; unreadable ones are passed over."""
        if entry.get("samples") is None:
            return None
        import numpy as np

        from heartseg.report.figures import overlay_grid

        path = self.run_dir / entry["samples"]
        try:
            with np.load(path) as samples:
                arrays = {key: samples[key] for key in samples.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:  # a cut-off file
            _log.warning("no overlay from %s: %s", path, error)
            return None
        titles = [str(case) for case in arrays["case_ids"]]
        images, masks, predictions = (arrays[key] for key in ("images", "masks", "predictions"))
        return overlay_grid(images, masks, predictions, self.dataset, titles)
