from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from heartseg.tracking import tracker as module
from heartseg.tracking.client import connect
from heartseg.tracking.tracker import RunTracker
from heartseg.training.run_dir import read_state
from tests.processes import wait_until
from tests.tracking.stores import Server, expected, free_port, journal_line, new_run, points

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.05)
    monkeypatch.setattr(module, "MAX_WAIT_S", 0.5)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def append(run_dir: Path, *lines: str) -> None:
    with open(run_dir / "journal.jsonl", "a", encoding="utf-8") as stream:
        stream.writelines(lines)


def test_epochs_arrive_once_in_order_while_the_training_runs(store, run_dir):
    run_id = new_run(store)

    with RunTracker(run_id, run_dir, store, "camus"):
        append(run_dir, journal_line(0), journal_line(1))
        wait_until(lambda: len(points(store, run_id)) == 2, seconds=30)  # before the training's end
        append(run_dir, journal_line(2))

    assert points(store, run_id) == expected(range(3))
    assert [value for _, value, _ in points(store, run_id, "train_loss")] == [1, 1 / 2, 1 / 3]
    assert connect(store).get_run(run_id).info.status == "FINISHED"


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_the_run_ends_as_the_training_did(store, run_dir, error, status):
    run_id = new_run(store)

    def train() -> None:
        with RunTracker(run_id, run_dir, store, "camus"):
            append(run_dir, journal_line(0))
            raise error

    with pytest.raises(error):
        train()

    assert connect(store).get_run(run_id).info.status == status
    assert points(store, run_id) == expected(range(1))


def test_a_half_line_waits_for_its_rest(store, run_dir):
    run_id = new_run(store)
    line = journal_line(1)

    with RunTracker(run_id, run_dir, store, "camus"):
        append(run_dir, journal_line(0), line[:20])
        wait_until(lambda: len(points(store, run_id)) == 1, seconds=30)
        time.sleep(0.2)
        append(run_dir, line[20:])

    assert points(store, run_id) == expected(range(2))


def test_the_remains_of_killed_writers_are_passed_over(store, run_dir):
    """A resumed writer ends the incomplete line; a repeated epoch is sent once."""
    run_id = new_run(store)
    append(run_dir, journal_line(0), journal_line(1), '{"epoch": 2, "ti\n', journal_line(1))
    append(run_dir, "noise\n", journal_line(2), journal_line(3), journal_line(4)[:30])

    RunTracker(run_id, run_dir, store, "camus").close("KILLED")

    assert points(store, run_id) == expected(range(4))


def test_a_repeated_epoch_keeps_its_first_values(store, run_dir):
    run_id = new_run(store)
    again = json.loads(journal_line(1))
    again["metrics"]["dice_mean"] = 0.77
    append(run_dir, journal_line(0), journal_line(1), json.dumps(again) + "\n", journal_line(2))

    RunTracker(run_id, run_dir, store, "camus").close("FINISHED")

    assert points(store, run_id) == expected(range(3))


def test_points_that_arrived_unacknowledged_are_not_doubled(store, run_dir):
    """The tracker was killed after epoch 1 was sent and before journal.sent was written."""
    run_id = new_run(store)
    append(run_dir, journal_line(0))
    RunTracker(run_id, run_dir, store, "camus").close("KILLED")
    before = (run_dir / "journal.sent").read_bytes()
    append(run_dir, journal_line(1))
    RunTracker(run_id, run_dir, store, "camus").close("KILLED")
    (run_dir / "journal.sent").write_bytes(before)
    append(run_dir, journal_line(2))

    RunTracker(run_id, run_dir, store, "camus").close("FINISHED")

    assert points(store, run_id) == expected(range(3))


def test_a_replaced_run_gets_the_whole_journal(store, run_dir):
    first, second = new_run(store), new_run(store)
    append(run_dir, journal_line(0), journal_line(1))
    RunTracker(first, run_dir, store, "camus").close("KILLED")
    append(run_dir, journal_line(2))

    RunTracker(second, run_dir, store, "camus").close("FINISHED")

    assert points(store, first) == expected(range(2))
    assert points(store, second) == expected(range(3))


def test_sample_predictions_become_overlays(store, run_dir, tmp_path):
    run_id = new_run(store)
    masks = np.zeros((2, 32, 32), np.uint8)
    masks[:, 8:20, 8:20] = 1
    (run_dir / "samples").mkdir()
    np.savez(
        run_dir / "samples/epoch_000.npz",
        images=masks * 100,
        masks=masks,
        predictions=masks,
        case_ids=np.array(["a", "b"]),
    )
    (run_dir / "samples/epoch_001.npz").write_bytes(b"cut off")
    append(run_dir, journal_line(0, "samples/epoch_000.npz"))
    append(run_dir, journal_line(1, "samples/epoch_001.npz"), journal_line(2, "samples/none.npz"))

    RunTracker(run_id, run_dir, store, "camus").close("FINISHED")

    assert points(store, run_id) == expected(range(3))
    [overlay] = (tmp_path / "mlartifacts").rglob("overlays/*")
    assert overlay.name == "epoch_000.png"
    assert overlay.read_bytes().startswith(b"\x89PNG")


def keep_samples(run_dir: Path, count: int) -> None:
    """Write journal, files and sample predictions of a training of `count` epochs."""
    (run_dir / "samples").mkdir()
    (run_dir / "artifacts").mkdir()
    (run_dir / "artifacts/recipe.yaml").write_text("epochs: 2\n")
    masks = np.zeros((1, 32, 32), np.uint8)
    for epoch in range(count):
        path = f"samples/epoch_{epoch:03d}.npz"
        arrays = {"images": masks, "masks": masks, "predictions": masks}
        np.savez(run_dir / path, case_ids=np.array(["a"]), **arrays)
        append(run_dir, journal_line(epoch, path))


def test_a_failing_artifact_store_delays_overlays_only(
    store, run_dir, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(module, "CLOSE_S", 2.0)
    run_id = new_run(store)
    places = tmp_path / "mlartifacts"
    places.rename(tmp_path / "kept")
    places.write_text("a file where the folder of the artifacts was")
    keep_samples(run_dir, 2)

    with caplog.at_level(logging.WARNING), RunTracker(run_id, run_dir, store, "camus"):
        wait_until(lambda: len(points(store, run_id)) == 2, seconds=30)
        wait_until(lambda: "does not accept overlays" in caplog.text, seconds=30)
        append(run_dir, journal_line(2))
        wait_until(lambda: len(points(store, run_id)) == 3, seconds=30)

    assert "has all metrics" in caplog.text
    assert connect(store).get_run(run_id).info.status == "FINISHED"
    assert read_state(run_dir)["sent"] is False

    places.unlink()
    (tmp_path / "kept").rename(places)
    assert RunTracker(run_id, run_dir, store, "camus").close("FINISHED")
    assert sorted(p.name for p in places.rglob("epoch_*")) == ["epoch_000.png", "epoch_001.png"]
    assert len(list(places.rglob("recipe.yaml"))) == 1
    assert points(store, run_id) == expected(range(3))


def test_a_slow_artifact_store_delays_overlays_only(store, run_dir, monkeypatch):
    run_id = new_run(store)
    release = threading.Event()
    original = MlflowClient.log_artifacts

    def slow(self, *arguments, **options):
        assert release.wait(60)
        return original(self, *arguments, **options)

    monkeypatch.setattr(MlflowClient, "log_artifacts", slow)
    monkeypatch.setattr(module, "CLOSE_S", 0.5)
    keep_samples(run_dir, 2)
    tracker = RunTracker(run_id, run_dir, store, "camus")
    tracker.start()
    wait_until(lambda: len(points(store, run_id)) == 2, seconds=30)
    assert not tracker.close("FINISHED")
    assert connect(store).get_run(run_id).info.status == "FINISHED"
    release.set()
    wait_until(lambda: (run_dir / "artifacts.sent").exists(), seconds=30)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_of_ours_keeps_its_traceback_and_loses_no_point(store, run_dir, monkeypatch):
    run_id = new_run(store)
    append(run_dir, journal_line(0))
    seen = []
    monkeypatch.setattr(threading, "excepthook", lambda told: seen.append(told.exc_type))
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", lambda *_, **__: {}["ours"])
        assert not RunTracker(run_id, run_dir, store, "camus").close("FINISHED")
    assert KeyError in seen
    assert RunTracker(run_id, run_dir, store, "camus").close("FINISHED")
    assert points(store, run_id) == expected(range(1))


def test_an_end_without_a_server_keeps_the_points(store, run_dir, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(module, "CLOSE_S", 0.5)
    run_id = new_run(store)
    append(run_dir, journal_line(0), journal_line(1))
    dead = f"http://me:secret@127.0.0.1:{free_port()}"
    begin = time.monotonic()

    with caplog.at_level(logging.WARNING):
        arrived = RunTracker(run_id, run_dir, dead, "camus").close("FINISHED")

    assert not arrived
    assert time.monotonic() - begin < 5
    assert "2 epoch(s)" in caplog.text
    assert str(run_dir / "journal.jsonl") in caplog.text
    assert "secret" not in caplog.text
    assert RunTracker(run_id, run_dir, store, "camus").close("FINISHED")
    assert points(store, run_id) == expected(range(2))


@pytest.mark.slow
def test_an_outage_loses_nothing_and_nobody_waits(server: Server, run_dir, caplog, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run_id = new_run(server.uri)
    caplog.set_level(logging.WARNING)
    with RunTracker(run_id, run_dir, server.uri, "camus"):
        append(run_dir, journal_line(0), journal_line(1))
        wait_until(lambda: len(points(server.uri, run_id)) == 2, seconds=30)
        server.stop()
        append(run_dir, journal_line(2))
        wait_until(lambda: "does not answer" in caplog.text, seconds=30)
        append(run_dir, journal_line(3))
        server.start()
        wait_until(lambda: len(points(server.uri, run_id)) == 4, seconds=30)
        append(run_dir, journal_line(4))

    assert points(server.uri, run_id) == expected(range(5))
    assert connect(server.uri).get_run(run_id).info.status == "FINISHED"
    assert caplog.text.count("does not answer") == 1
    assert "answers again" in caplog.text


@pytest.mark.slow
def test_a_killed_driver_is_taken_up_again(store, run_dir):
    """After SIGKILL, the next tracker of the run sends the rest of the journal once."""
    run_id = new_run(store)
    code = (
        "import sys, time; from pathlib import Path;"
        "from heartseg.tracking.tracker import RunTracker;"
        "RunTracker(sys.argv[1], Path(sys.argv[2]), sys.argv[3], 'camus').start();"
        "time.sleep(600)"
    )
    driver = subprocess.Popen([sys.executable, "-c", code, run_id, str(run_dir), store])
    stop = threading.Event()

    def train() -> None:
        for epoch in range(300):
            append(run_dir, journal_line(epoch))
            if stop.wait(0.01):
                return

    training = threading.Thread(target=train)
    training.start()
    try:
        wait_until(lambda: (run_dir / "journal.sent").exists(), seconds=60)
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        stop.set()
        training.join()
    written = len((run_dir / "journal.jsonl").read_text().splitlines())
    assert connect(store).get_run(run_id).info.status == "RUNNING"

    with RunTracker(run_id, run_dir, store, "camus"):
        append(run_dir, journal_line(written))

    assert points(store, run_id) == expected(range(written + 1))


@pytest.mark.slow
def test_system_metrics_are_logged(store, run_dir, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    run_id = new_run(store)

    with RunTracker(run_id, run_dir, store, "camus", system_metrics=True):
        time.sleep(2)

    metrics = connect(store).get_run(run_id).data.metrics
    assert 0 <= metrics["system/cpu_utilization_percentage"] <= 100
    assert metrics["system/system_memory_usage_megabytes"] > 0
    before = len(points(store, run_id, "system/cpu_utilization_percentage"))
    time.sleep(0.6)
    assert len(points(store, run_id, "system/cpu_utilization_percentage")) == before  # it ended
