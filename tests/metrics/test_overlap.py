"""Tests of Dice from counts: values by hand, an independent count, and invalid input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from heartseg.metrics.overlap import (
    confusion_counts,
    dice_from_counts,
    mask_dice,
    mask_iou,
    mask_mse,
)

REFERENCE = torch.tensor([[[0, 0, 1], [0, 1, 1], [2, 2, 1]], [[0, 0, 0], [0, 0, 0], [0, 0, 2]]])
PREDICTED = torch.tensor([[[0, 1, 1], [0, 1, 0], [2, 2, 2]], [[0, 0, 0], [0, 0, 1], [0, 0, 2]]])


def test_counts_of_two_small_cases() -> None:
    counts = confusion_counts(PREDICTED, REFERENCE, 4)
    first = [[2, 1, 1], [2, 1, 2], [2, 1, 0], [0, 0, 0]]  # tp, fp, fn of each label
    second = [[7, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert counts.dtype == torch.int64
    assert counts.tolist() == [first, second]


def test_dice_per_case_and_overall() -> None:
    counts = confusion_counts(PREDICTED, REFERENCE, 4)
    per_case = dice_from_counts(counts)
    assert per_case[0].tolist() == pytest.approx([4 / 6, 4 / 7, 4 / 5, 1.0])
    assert per_case[1].tolist() == pytest.approx([14 / 15, 0.0, 1.0, 1.0])  # 1: only predicted
    whole = dice_from_counts(counts.sum(0))
    assert whole.tolist() == pytest.approx([18 / 21, 4 / 8, 6 / 7, 1.0])  # 3: nowhere, no NaN


def test_counts_equal_a_loop() -> None:
    rng = np.random.default_rng(0)
    predicted, reference = rng.integers(0, 5, (2, 3, 17, 11), dtype=np.uint8)
    counts = confusion_counts(torch.from_numpy(predicted), torch.from_numpy(reference), 5).numpy()
    for case in range(3):
        for label in range(5):
            p, r = predicted[case] == label, reference[case] == label
            expected = [(p & r).sum(), (p & ~r).sum(), (~p & r).sum()]
            assert counts[case, label].tolist() == expected


def test_boolean_maps_are_two_labels() -> None:
    predicted = torch.tensor([[[True, True, False]]])
    reference = torch.tensor([[[1, 0, 0]]], dtype=torch.uint8)
    assert confusion_counts(predicted, reference, 2).tolist() == [[[1, 0, 1], [1, 1, 0]]]


def test_no_case_gives_no_counts() -> None:
    empty = torch.zeros((0, 4, 4), dtype=torch.uint8)
    assert confusion_counts(empty, empty, 3).shape == (0, 3, 3)


@pytest.mark.parametrize(
    ("predicted", "reference", "labels", "error"),
    [
        (torch.zeros(1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.uint8), 2, TypeError),
        (torch.zeros(2, 2).long(), torch.zeros(2, 2).long(), 2, ValueError),
        (torch.zeros(1, 2, 2).long(), torch.zeros(1, 2, 3).long(), 2, ValueError),
        (torch.full((1, 2, 2), 2), torch.zeros(1, 2, 2).long(), 2, ValueError),
        (torch.zeros(1, 2, 2).long(), torch.full((1, 2, 2), -1), 2, ValueError),
        (torch.zeros(1, 2, 2).long(), torch.zeros(1, 2, 2).long(), 1, ValueError),
    ],
)
def test_wrong_arguments_are_rejected(
    predicted: torch.Tensor, reference: torch.Tensor, labels: int, error: type[Exception]
) -> None:
    with pytest.raises(error):
        confusion_counts(predicted, reference, labels)


@pytest.mark.parametrize("counts", [torch.zeros(4, 2), torch.tensor([[-1, 2, 3]])])
def test_dice_rejects_invalid_counts(counts: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="counts"):
        dice_from_counts(counts)


def test_mask_dice() -> None:
    square = np.zeros((10, 10), bool)
    square[2:6, 2:6] = True
    shifted = np.roll(square, 2, axis=1)  # 8 of 16 pixels shared
    empty = np.zeros((10, 10), bool)
    assert mask_dice(square, square) == 1.0
    assert mask_dice(square, shifted) == 0.5
    assert mask_dice(square, empty) == mask_dice(empty, square) == 0.0
    assert mask_dice(empty, empty) == 1.0
    with pytest.raises(ValueError, match="boolean"):
        mask_dice(square.astype(np.uint8), square)
    with pytest.raises(ValueError, match="equal in shape"):
        mask_dice(square[:5], square)


def test_iou_and_mse() -> None:
    square = np.zeros((10, 10), bool)
    square[2:6, 2:6] = True
    shifted = np.roll(square, 2, axis=1)  # 8 of 16 pixels shared: 24 in the union, 16 wrong
    empty = np.zeros((10, 10), bool)
    assert mask_iou(square, square) == mask_iou(empty, empty) == 1.0
    assert mask_iou(square, shifted) == pytest.approx(8 / 24)
    assert mask_iou(square, empty) == 0.0
    assert mask_mse(square, shifted) == pytest.approx(0.16)
    assert mask_mse(square, square) == 0.0
    assert mask_mse(square, ~square) == 1.0


def test_iou_follows_from_dice() -> None:
    for seed in range(5):
        one, other = np.random.default_rng(seed).random((2, 20, 20)) < 0.3
        dice = mask_dice(one, other)
        assert mask_iou(one, other) == pytest.approx(dice / (2 - dice))
