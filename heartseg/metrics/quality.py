"""How well scores tell bad M-mode windows from good ones; a score is a probability of "bad"."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from heartseg.datasets.mmode_quality import Quality

THRESHOLD = 0.5
"""Score from which on a window is called bad, as `predicted_labels` has it."""
BINS = 200
"""Of the scores' histograms, by which validation sums up; an even number, so that the threshold
lies between two bins."""


def bad_scores(logits: torch.Tensor) -> torch.Tensor:
    """The model's probability that a window is bad, (N,), from logits (N, K, H, W).

    All pixels of a window hold the same logits (`heartseg.models.window_cnn`).
    """
    first = logits[:, :, 0, 0].float()
    return first[:, 0].sigmoid() if first.shape[1] == 1 else first.softmax(1)[:, Quality.BAD]


def score_counts(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Histograms of the scores of good and of bad windows, int64 (2, BINS): counts add up.

    Args:
        logits: (N, K, H, W).
        masks: uint8 (N, H, W), the window's label in every pixel.
    """
    bins = (bad_scores(logits) * BINS).long().clamp(0, BINS - 1)
    cells = masks[:, 0, 0].long() * BINS + bins
    return torch.bincount(cells, minlength=2 * BINS).reshape(2, BINS)


def rates_from_counts(counts: torch.Tensor) -> dict[str, float]:
    """Balanced accuracy and area under the ROC curve from summed `score_counts`.

    The area is the chance that a bad window scores above a good one; in one bin they tie, which
    counts a half (Hanley & McNeil, Radiology 143, 1982). NaN where one of the labels is absent.
    """
    good, bad = counts.double()
    below = good.cumsum(0) - good / 2
    half = BINS // 2
    accuracy = (good[:half].sum() / good.sum() + bad[half:].sum() / bad.sum()) / 2
    auc = (bad * below).sum() / (bad.sum() * good.sum())
    return {"balanced_accuracy": accuracy.item(), "auc": auc.item()}


def area_under_roc(bad: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve, from ranks; NaN where one of the labels is absent.

    Args:
        bad: bool (n,).
        scores: (n,).
    """
    if bad.all() or not bad.any():
        return float("nan")
    n_bad, n_good = bad.sum(), (~bad).sum()
    ranks = pd.Series(scores).rank().to_numpy()
    below = ranks[bad].sum() - n_bad * (n_bad + 1) / 2  # Mann and Whitney's U
    return float(below / (n_bad * n_good))
