"""MLflow stores for tests: a SQLite file, and a real server on the loopback interface."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from heartseg.tracking.client import connect, open_run

RECIPE = {"dataset": "camus", "model": {"name": "unet", "channels": [4, 8]}, "epochs": 3}


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore the process-wide settings of heartseg and MLflow after the test."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    kept = dict(os.environ)
    yield
    mlflow = sys.modules.get("mlflow")
    if mlflow is not None:
        mlflow.set_tracking_uri(None)
    for name in os.environ.keys() - kept.keys():
        del os.environ[name]


@pytest.fixture(scope="session")
def _cold_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that is created once, because MLflow needs seconds to create its tables."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    connect(f"sqlite:///{path}")
    return path


@pytest.fixture
def store(tmp_path: Path, _cold_store: Path) -> str:
    """URI of an empty store in the test's folder."""
    shutil.copy(_cold_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def new_run(uri: str) -> str:
    """Open a run as a training does."""
    return open_run(
        connect(uri),
        experiment="heartseg-camus",
        name="camus-1",
        params=RECIPE,
        texts={"recipe.yaml": RECIPE},
        dataset="camus",
        data_source="data/prepared/camus.parquet",
        data_digest="0" * 32,
        tags={"git.commit": "none"},
    )


def forget_run(uri: str, run_id: str) -> None:
    """Remove a deleted run permanently, as `mlflow gc` does."""
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database, database:
        for table in ("params", "tags", "metrics", "latest_metrics", "runs"):
            database.execute(f"DELETE FROM {table} WHERE run_uuid = ?", (run_id,))


def journal_line(epoch: int, samples: str | None = None) -> str:
    """Return a journal line as a training writes it, with values computed from the epoch."""
    metrics = {"train_loss": 1.0 / (epoch + 1), "dice_mean": epoch / 100}
    entry = {"epoch": epoch, "time": 1_700_000_000.5 + epoch, "metrics": metrics}
    return json.dumps(entry | {"samples": samples}) + "\n"


def points(uri: str, run_id: str, key: str = "dice_mean") -> list[tuple[int, float, int]]:
    """Return all points (step, value, timestamp) of a metric in the store."""
    history = connect(uri).get_metric_history(run_id, key)
    return [(point.step, point.value, point.timestamp) for point in history]


def expected(epochs: range) -> list[tuple[int, float, int]]:
    """Return the expected result of `points` after the journal lines of these epochs."""
    return [(epoch, epoch / 100, 1_700_000_000_500 + 1000 * epoch) for epoch in epochs]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A real `mlflow server` that can be stopped and started again on the same port and data."""

    def __init__(self, folder: Path, database: str | None = None, workers: int = 1):
        self.folder = folder
        self.database = database or f"sqlite:///{folder / 'mlflow.db'}"
        self.workers = workers
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        command = [sys.executable, "-m", "mlflow", "server", "--workers", str(self.workers)]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", self.database]
        return [*command, "--artifacts-destination", str(self.folder / "artifacts")]

    def variables(self) -> dict[str, str]:
        """Environment variables in addition to those of every test server."""
        return {}

    def start(self) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")}
        environment["MLFLOW_DISABLE_TELEMETRY"] = "true"
        # Its processes for evaluations of language models take longer to start than all the rest.
        environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env=environment | self.variables(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 120
        while not self._is_up():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError((self.folder / "server.log").read_text())
            time.sleep(0.3)

    def stop(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def _is_up(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False


@pytest.fixture
def server(tmp_path: Path, _cold_store: Path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    shutil.copy(_cold_store, folder / "mlflow.db")
    running = Server(folder)
    try:
        running.start()
        yield running
    finally:
        running.stop()
