"""Metrics of the classification of M-mode windows by a score, the probability of "bad"."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from heartseg.datasets.mmode_quality import Quality

THRESHOLD = 0.5
"""Score above which a window is classified as bad, as in `predicted_labels`."""
BINS = 200
"""Number of bins of the histograms of scores. It is even, so that the threshold lies between two
bins."""


def bad_scores(logits: torch.Tensor) -> torch.Tensor:
    """Compute the probability (N,) that each window is bad.

    Args:
        logits: (N, K, H, W), equal in all pixels of a window (`heartseg.models.window_cnn`).
    """
    first = logits[:, :, 0, 0].float()
    return first[:, 0].sigmoid() if first.shape[1] == 1 else first.softmax(1)[:, Quality.BAD]


def score_counts(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Compute the histograms of the scores of good and of bad windows, which can be added.

    Args:
        logits: (N, K, H, W), equal in all pixels of a window.
        masks: uint8 (N, H, W), the label of the window in every pixel.

    Returns:
        Number of good and of bad windows in each bin, int64 (2, BINS).
    """
    bins = (bad_scores(logits) * BINS).long().clamp(0, BINS - 1)
    cells = masks[:, 0, 0].long() * BINS + bins
    return torch.bincount(cells, minlength=2 * BINS).reshape(2, BINS)


def rates_from_counts(counts: torch.Tensor) -> dict[str, float]:
    """Compute the balanced accuracy and the area under the ROC curve (AUC).

    The AUC is the probability that a bad window has a higher score than a good one; windows in the
    same bin count one half (Hanley & McNeil, Radiology 143, 1982).

    Args:
        counts: Sum of `score_counts` (2, BINS).

    Returns:
        balanced_accuracy and auc; NaN if one of the labels is absent.
    """
    good, bad = counts.double()
    below = good.cumsum(0) - good / 2
    half = BINS // 2
    accuracy = (good[:half].sum() / good.sum() + bad[half:].sum() / bad.sum()) / 2
    auc = (bad * below).sum() / (bad.sum() * good.sum())
    return {"balanced_accuracy": accuracy.item(), "auc": auc.item()}


def area_under_roc(bad: np.ndarray, scores: np.ndarray) -> float:
    """Compute the area under the ROC curve from ranks; NaN if one of the labels is absent.

    Args:
        bad: Whether each window is bad, bool (n,).
        scores: Scores of the windows (n,).
    """
    if bad.all() or not bad.any():
        return float("nan")
    n_bad, n_good = bad.sum(), (~bad).sum()
    ranks = pd.Series(scores).rank().to_numpy()
    below = ranks[bad].sum() - n_bad * (n_bad + 1) / 2  # U statistic of Mann and Whitney
    return float(below / (n_bad * n_good))
