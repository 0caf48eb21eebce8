"""What a worker is asked to do after a step, by itself: no Ray is started."""

from __future__ import annotations

import time

import pytest

from heartseg.cluster.stop_signal import AGREE_SECONDS, Asking, load_for_all
from heartseg.errors import InputError, catch_full_disk
from heartseg.training.checkpoint import save_checkpoint
from heartseg.training.loop import Ask
from heartseg.training.run_dir import STOP


def test_it_stops_where_a_file_says_so(tmp_path):
    asking = Asking(tmp_path, rank=0, world_size=1)
    (tmp_path / STOP).touch()
    assert asking() is Ask.STOP


def test_a_file_that_could_not_be_written_ends_the_training(tmp_path):
    asking = Asking(tmp_path, rank=0, world_size=1)
    with asking.noting_faults(), catch_full_disk(tmp_path / "a"):
        raise OSError(28, "No space left on device")
    assert asking() is Ask.ABORT
    assert asking.fault.startswith(f"{tmp_path / 'a'} could not be written: No space left")


def test_workers_agree_by_the_clock_not_after_each_step(tmp_path, monkeypatch):
    asking = Asking(tmp_path, rank=0, world_size=1)
    looks = []
    monkeypatch.setattr(asking, "_decide", lambda: looks.append(time.monotonic()) or Ask.GO_ON)
    end = time.monotonic() + 4 * AGREE_SECONDS
    steps = 0
    while time.monotonic() < end:
        time.sleep(0.002)
        assert asking() is Ask.GO_ON
        steps += 1
    assert 3 <= len(looks) <= 8 < steps


def test_all_damaged_is_told(tmp_path):
    assert load_for_all(tmp_path, rank=0, world_size=1) is None
    path = save_checkpoint(tmp_path, {"next_epoch": 2, "step": 0})
    assert load_for_all(tmp_path, rank=0, world_size=1) == {"next_epoch": 2, "step": 0}
    path.write_bytes(b"")
    with pytest.raises(InputError, match="all checkpoints"):
        load_for_all(tmp_path, rank=0, world_size=1)
