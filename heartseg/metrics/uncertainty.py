"""Uncertainty of a model per pixel and per case, and its correlation with Dice."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd


def normalised_entropy(probabilities: np.ndarray) -> np.ndarray:
    """Compute the entropy of the class probabilities of each pixel, normalised to 0..1.

    It is H(p) / ln K with H(p) = -sum_k p_k ln p_k: 0 if one class is certain, 1 if all classes are
    equally likely. For probabilities that are averaged over an ensemble's networks and over views,
    it is the predictive entropy (Gal, Uncertainty in Deep Learning, 2016, section 3.3.1;
    Lakshminarayanan et al., NeurIPS 2017).

    Args:
        probabilities: Class probabilities (K, H, W) with sum 1 over the classes, K at least 2.

    Returns:
        Entropy float32 (H, W).

    Raises:
        ValueError: There are fewer than 2 classes.
    """
    if len(probabilities) < 2:
        raise ValueError(f"entropy needs at least 2 classes, got {len(probabilities)}")
    tiny = np.finfo(np.float32).tiny
    p = np.maximum(probabilities, tiny, dtype=np.float32)
    entropy = -(p * np.log(p)).sum(0) / math.log(len(p))
    return np.clip(entropy, 0, 1).astype(np.float32)


def case_uncertainty(entropy: np.ndarray, labels: np.ndarray) -> float:
    """Compute the uncertainty of an image: the mean entropy of the pixels predicted as heart.

    The background is left out, because its mean entropy depends on its area.

    Args:
        entropy: Result of `normalised_entropy` (H, W).
        labels: Predicted label map (H, W); 0 is the background.

    Returns:
        Uncertainty from 0 (certain) to 1; 1 if no heart is found.
    """
    heart = labels > 0
    return float(entropy[heart].mean(dtype=np.float64)) if heart.any() else 1.0


def summarise_uncertainty(pairs: pd.DataFrame) -> dict[str, Any]:
    """Summarise the uncertainty of all cases and its correlation with Dice.

    Args:
        pairs: A row per case with columns uncertainty and dice.

    Returns:
        n; mean and max of the uncertainty (0 to 1); spearman_dice, see `spearman`.
    """
    return {
        "n": len(pairs),
        "mean": float(pairs["uncertainty"].mean()),
        "max": float(pairs["uncertainty"].max()),
        "spearman_dice": spearman(pairs),
    }


def spearman(pairs: pd.DataFrame) -> float:
    """Compute Spearman's rank correlation of the columns uncertainty and dice.

    It is -1 if the more certain case always has the higher Dice, and NaN if all cases are equal.
    """
    return float(pairs["uncertainty"].rank().corr(pairs["dice"].rank()))
