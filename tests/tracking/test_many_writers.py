"""Twenty trainings and a sweep whose trackers write to one server at the same time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from heartseg.tracking.client import connect
from heartseg.tracking.sender import shown
from heartseg.tracking.sweep_tracker import SweepRun, SweepTracker
from heartseg.tracking.tracker import RunTracker
from heartseg.tracking.trial import Trial
from heartseg.training.run_dir import read_state
from tests.tracking.stores import Server, new_run

RUNS, TRIALS, EPOCHS = 20, 8, 6
KEYS = ("train_loss", "val_loss", "dice_mean", "dice_lv", "dice_myo", "dice_la", "learning_rate")
BETWEEN_EPOCHS_S = 0.5


def value(run: int, epoch: int, number: int) -> float:
    """Return a value that is unique for each run, epoch and metric."""
    return run + epoch / 100 + number / 10_000


def train(folder: Path, run: int) -> list[int]:
    """Write a training's journal epoch by epoch, and return its times (ms)."""
    times = []
    for epoch in range(EPOCHS):
        now = time.time()
        metrics = {key: value(run, epoch, number) for number, key in enumerate(KEYS)}
        entry = {"epoch": epoch, "time": now, "metrics": metrics, "samples": None}
        with open(folder / "journal.jsonl", "a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")
        times.append(int(now * 1000))
        time.sleep(BETWEEN_EPOCHS_S)
    return times


@pytest.mark.slow
def test_every_metric_of_all_is_there_once_and_in_order(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable
) -> None:
    from mlflow import MlflowClient

    delays: list[float] = []
    log_batch = MlflowClient.log_batch

    def timed(self: MlflowClient, run_id: str, metrics: Any = (), **others: Any) -> Any:
        done = log_batch(self, run_id, metrics, **others)
        delays.extend(time.time() - metric.timestamp / 1000 for metric in metrics)
        return done

    connect(server.uri)
    with ThreadPoolExecutor(8) as pool:  # all name the same dataset for the first time
        ids = list(pool.map(lambda _: new_run(server.uri), range(RUNS)))
    folders = [tmp_path / f"run{number}" for number in range(RUNS + TRIALS)]
    for folder in folders:
        folder.mkdir()
    tags = {"heartseg.sweep": "camus-sweep-1"}
    parent = new_run(server.uri)
    sweep = SweepRun(parent, "heartseg-camus", "camus", "prepared.parquet", "0" * 32, tags)
    monkeypatch.setattr(MlflowClient, "log_batch", timed)

    written: dict[int, list[int]] = {}

    def work(number: int) -> None:
        written[number] = train(folders[number], number)

    with ExitStack() as stack:
        for run_id, folder in zip(ids, folders, strict=False):
            stack.enter_context(RunTracker(run_id, folder, server.uri, "camus"))
        mirror = stack.enter_context(SweepTracker(server.uri, sweep))
        trials = [
            Trial(number, {"learning_rate": 0.1 / number}, folders[number])
            for number in range(RUNS, RUNS + TRIALS)
        ]
        for trial in trials:
            mirror.begin(trial)
        threads = [threading.Thread(target=work, args=(n,)) for n in range(RUNS + TRIALS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for trial in trials:
            trial.state, trial.value = "complete", float(trial.number)
            mirror.end(trial)

    client = connect(server.uri)
    ids += [read_state(folder)["mlflow_run_id"] for folder in folders[RUNS:]]
    for run, run_id in enumerate(ids):
        assert client.get_run(run_id).info.status == "FINISHED"
        for number, name in enumerate(shown(dict.fromkeys(KEYS, 0.0))):
            points = [
                (point.step, point.value, point.timestamp)
                for point in client.get_metric_history(run_id, name)
            ]
            assert points == [
                (epoch, value(run, epoch, number), written[run][epoch]) for epoch in range(EPOCHS)
            ]
    results = client.get_metric_history(parent, "trial_value")  # by the time of the last epoch
    assert sorted((point.step, point.value) for point in results) == [
        (number, float(number)) for number in range(RUNS, RUNS + TRIALS)
    ]
    delays.sort()
    told = {"median": median(delays), "95 %": delays[int(0.95 * len(delays))], "max": delays[-1]}
    for name, seconds in told.items():
        record_property(f"seconds from the epoch's end to its arrival, {name}", seconds)
    print(
        "\nseconds from an epoch's end to its arrival:", {k: round(v, 2) for k, v in told.items()}
    )
