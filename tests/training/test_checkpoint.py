"""Checkpoints survive kills and refuse code."""

from __future__ import annotations

import pickle

import pytest
import torch

from heartseg.errors import InputError
from heartseg.training import checkpoint
from heartseg.training.checkpoint import FILE_NAME, load_checkpoint, save_checkpoint


def test_round_trip(tmp_path):
    state = {"model": {"w": torch.arange(6.0).reshape(2, 3)}, "epoch": 4, "best": None}
    save_checkpoint(tmp_path, state)
    back = load_checkpoint(tmp_path)
    assert torch.equal(back["model"]["w"], state["model"]["w"])
    assert (back["epoch"], back["best"]) == (4, None)


def test_failure_in_the_midst_of_writing_leaves_the_old_one(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, {"epoch": 1})

    def torn(state, stream):
        stream.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", torn)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, {"epoch": 2})
    monkeypatch.undo()
    assert load_checkpoint(tmp_path) == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_truncated_file_is_named(tmp_path):
    path = save_checkpoint(tmp_path, {"model": {"w": torch.zeros(1000)}})
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(InputError, match=str(path)):
        load_checkpoint(tmp_path)


def test_pickled_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (exec, ("raise SystemExit('code ran')",))

    (tmp_path / FILE_NAME).write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match="no readable checkpoint"):
        load_checkpoint(tmp_path)
