"""Tests of checkpoints: kills, full disks, damaged files, and pickled code."""

from __future__ import annotations

import hashlib
import pickle

import pytest
import torch

from heartseg.errors import InputError
from heartseg.training import checkpoint
from heartseg.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from heartseg.training.run_dir import damaged_checkpoints


def state(epoch, step=0, **more):
    return {"next_epoch": epoch, "step": step} | more


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def truncate(path, place):
    path.write_bytes(path.read_bytes()[:place])


def test_round_trip(tmp_path):
    saved = state(4, model={"w": torch.arange(6.0).reshape(2, 3)}, best=None)
    path = save_checkpoint(tmp_path, saved)
    back = load_checkpoint(tmp_path)
    assert torch.equal(back["model"]["w"], saved["model"]["w"])
    assert (back["next_epoch"], back["best"]) == (4, None)
    assert hashlib.sha256(path.read_bytes()).hexdigest() in path.name


def test_the_two_newest_are_kept(tmp_path):
    for epoch, step in ((2, 0), (9, 0), (10, 0), (10, 7)):
        save_checkpoint(tmp_path, state(epoch, step))
    assert [path.name[:11] for path in checkpoints(tmp_path)] == ["0010-000000", "0010-000007"]
    assert load_checkpoint(tmp_path) == state(10, 7)


@pytest.mark.parametrize("damage", [flip, truncate])
@pytest.mark.parametrize("place", [0, 700, -1])
def test_the_previous_checkpoint_is_used_if_the_newest_is_damaged(tmp_path, caplog, damage, place):
    save_checkpoint(tmp_path, state(2, model={"w": torch.zeros(300)}))
    path = save_checkpoint(tmp_path, state(3, model={"w": torch.ones(300)}))
    damage(path, place)
    assert load_checkpoint(tmp_path)["next_epoch"] == 2
    assert f"{path} is damaged" in caplog.text
    assert [p.name for p in damaged_checkpoints(tmp_path)] == [path.name + ".damaged"]
    assert load_checkpoint(tmp_path)["next_epoch"] == 2


def test_all_checkpoints_damaged(tmp_path):
    for epoch in (2, 3):
        flip(save_checkpoint(tmp_path, state(epoch)), 100)
    with pytest.raises(InputError, match=r"all checkpoints in .* are damaged"):
        load_checkpoint(tmp_path)


def test_weights_of_an_earlier_epoch_do_not_become_the_model():
    with pytest.raises(InputError, match=r"epoch 2; run `heartseg train`"):
        checkpoint.selected_weights(state(3, last=False))


def test_a_failed_write_keeps_the_previous_checkpoint(tmp_path, monkeypatch):
    old = save_checkpoint(tmp_path, state(1))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(InputError, match=r"0002-.* could not be written: No space left"):
        save_checkpoint(tmp_path, state(2))
    monkeypatch.undo()
    assert load_checkpoint(tmp_path) == state(1)
    assert list(old.parent.iterdir()) == [old]


def test_pickled_code_is_rejected(tmp_path):
    class Evil:
        def __reduce__(self):
            return (exec, ("raise SystemExit('code ran')",))

    content = pickle.dumps(Evil())
    name = f"0001-000000.{hashlib.sha256(content).hexdigest()}.pt"
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / name).write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        load_checkpoint(tmp_path)
