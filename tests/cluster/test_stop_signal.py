"""The stop signal of one worker, without Ray."""

from __future__ import annotations

import time

import pytest

from heartseg.cluster.stop_signal import SYNC_SECONDS, StopPoller, load_for_all
from heartseg.errors import InputError, catch_full_disk
from heartseg.training.checkpoint import save_checkpoint
from heartseg.training.loop import StopSignal
from heartseg.training.run_dir import STOP


def test_a_stop_file_stops_the_training(tmp_path):
    poller = StopPoller(tmp_path, rank=0, world_size=1)
    (tmp_path / STOP).touch()
    assert poller() is StopSignal.STOP


def test_a_file_that_could_not_be_written_aborts_the_training(tmp_path):
    poller = StopPoller(tmp_path, rank=0, world_size=1)
    with poller.recording_faults(), catch_full_disk(tmp_path / "a"):
        raise OSError(28, "No space left on device")
    assert poller() is StopSignal.ABORT
    assert str(tmp_path / "a") in poller.fault
    assert "No space left" in poller.fault


def test_workers_synchronise_by_the_clock_and_not_after_each_step(tmp_path, monkeypatch):
    poller = StopPoller(tmp_path, rank=0, world_size=1)
    decisions = []

    def decide():
        decisions.append(time.monotonic())
        return StopSignal.CONTINUE

    monkeypatch.setattr(poller, "_decide", decide)
    end = time.monotonic() + 4 * SYNC_SECONDS
    steps = 0
    while time.monotonic() < end:
        time.sleep(0.002)
        assert poller() is StopSignal.CONTINUE
        steps += 1
    assert 3 <= len(decisions) <= 8 < steps


def test_damaged_checkpoints_are_refused(tmp_path):
    assert load_for_all(tmp_path, rank=0, world_size=1) is None
    path = save_checkpoint(tmp_path, {"next_epoch": 2, "step": 0})
    assert load_for_all(tmp_path, rank=0, world_size=1) == {"next_epoch": 2, "step": 0}
    path.write_bytes(b"")
    with pytest.raises(InputError, match=str(tmp_path)):
        load_for_all(tmp_path, rank=0, world_size=1)
