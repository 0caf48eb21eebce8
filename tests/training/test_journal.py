"""Tests of the journal: killed writers, repeated epochs, and samples."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch

from heartseg.data.resident import Resident
from heartseg.training.journal import JOURNAL, Journal, read_epochs, write_history
from heartseg.training.loop import Epoch
from tests.examples import disks


@pytest.fixture
def journal(tmp_path):
    images, masks = disks(3)
    val = Resident(torch.from_numpy(images), torch.from_numpy(masks), ["a", "b", "c"])
    return Journal(tmp_path, val, overlay_every=2, overlay_cases=2)


def epoch(number, dice, last=False):
    return Epoch(
        number, {"dice_mean": dice}, None, last, lambda count: torch.full((count, 32, 32), number)
    )


def test_repeated_epochs_count_once_and_incomplete_lines_are_skipped(journal, tmp_path):
    journal.write_epoch(epoch(1, 0.1))
    journal.write_epoch(epoch(2, 0.2))
    with open(tmp_path / JOURNAL, "a") as stream:
        stream.write('{"epoch": 3, "met')  # killed here; the run resumes from epoch 2
    assert [entry["epoch"] for entry in read_epochs(tmp_path)] == [1, 2]
    journal.write_epoch(epoch(2, 0.2))
    journal.write_epoch(epoch(3, 0.3))
    assert [(e["epoch"], e["metrics"]["dice_mean"]) for e in read_epochs(tmp_path)] == [
        (1, 0.1),
        (2, 0.2),
        (3, 0.3),
    ]
    write_history(tmp_path, tmp_path / "out" / "history.csv")
    with open(tmp_path / "out" / "history.csv", newline="") as stream:
        assert list(csv.DictReader(stream)) == [
            {"epoch": str(n), "dice_mean": f"0.{n}"} for n in (1, 2, 3)
        ]


def test_samples_every_few_epochs_and_at_the_end(journal, tmp_path):
    for number in (1, 2, 3):
        journal.write_epoch(epoch(number, 0.5, last=number == 3))
    samples = [entry["samples"] for entry in read_epochs(tmp_path)]
    assert samples == [None, "samples/epoch_002.npz", "samples/epoch_003.npz"]
    with np.load(tmp_path / samples[2]) as saved:
        assert saved["images"].shape == (2, 32, 32)
        assert np.array_equal(saved["masks"], journal.val.masks[:2].numpy())
        assert (saved["predictions"] == 3).all()
        assert saved["case_ids"].tolist() == ["a", "b"]
