"""How unsure a model is, per pixel and per case, and whether that tells its bad cases."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd


def normalised_entropy(probabilities: np.ndarray) -> np.ndarray:
    """Entropy of the class probabilities per pixel, 0 (sure) to 1 (all classes alike).

    H(p) / ln K with H(p) = -sum_k p_k ln p_k, of the probabilities averaged over an ensemble's
    networks and over the views of an image: the predictive entropy of Gal, Uncertainty in Deep
    Learning, 2016, section 3.3.1, for an ensemble as in Lakshminarayanan et al., NeurIPS 2017.
    A single network without views has an entropy too, that of its own probabilities.

    Args:
        probabilities: (K, H, W), K at least 2, sum 1 over the first axis.

    Returns:
        float32 (H, W).

    Raises:
        ValueError: fewer than 2 classes.
    """
    if len(probabilities) < 2:
        raise ValueError(f"entropy wants 2 classes or more, got {len(probabilities)}")
    tiny = np.finfo(np.float32).tiny
    p = np.maximum(probabilities, tiny, dtype=np.float32)
    entropy = -(p * np.log(p)).sum(0) / math.log(len(p))
    return np.clip(entropy, 0, 1).astype(np.float32)


def case_uncertainty(entropy: np.ndarray, labels: np.ndarray) -> float:
    """One number for an image, 0 to 1: mean entropy of the pixels told to be heart.

    The background's is left out, since it tells how much of it the image shows. 0 is a heart
    without doubt; 1 is also the value of an image in which no heart is found.

    Args:
        entropy: of `normalised_entropy`, (H, W).
        labels: predicted label map (H, W), 0 the background.
    """
    heart = labels > 0
    return float(entropy[heart].mean(dtype=np.float64)) if heart.any() else 1.0


def summarise_uncertainty(pairs: pd.DataFrame) -> dict[str, Any]:
    """Whether uncertain cases are the bad ones.

    Args:
        pairs: of `heartseg.evaluation.summary.uncertainty_and_dice`.

    Returns:
        n; mean and max of the uncertainty (0 to 1); spearman_dice, Spearman's rank correlation
        (-1 to 1) of uncertainty and Dice, -1 if the surer case is always the better one; NaN
        where all cases are alike.
    """
    return {
        "n": len(pairs),
        "mean": float(pairs["uncertainty"].mean()),
        "max": float(pairs["uncertainty"].max()),
        "spearman_dice": spearman(pairs),
    }


def spearman(pairs: pd.DataFrame) -> float:
    """Of `uncertainty_and_dice`; NaN where all cases are alike."""
    return float(pairs["uncertainty"].rank().corr(pairs["dice"].rank()))
