"""Calibration: whether predicted probabilities agree with observed frequencies."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from heartseg.datasets import DATASETS

BINS = 15
"""Number of bins, as in Guo et al., ICML 2017."""
MARGIN = 0.1
"""Margin around the heart on each side, as a fraction of its height and width."""
ALL = "all"
"""Name of the curve of the predicted label."""


@dataclass
class Reliability:
    """Sums over pixels, binned by their predicted probability. They can be added over cases.

    Attributes:
        counts: Number of pixels (BINS,) with a probability from i / BINS to (i + 1) / BINS.
        probability_sums: Sum of the probabilities (BINS,).
        true_counts: Number of pixels (BINS,) for which the prediction is true.
    """

    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS))
    probability_sums: np.ndarray = field(default_factory=lambda: np.zeros(BINS))
    true_counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS))

    def add(self, probability: np.ndarray, is_true: np.ndarray) -> None:
        """Add pixels.

        Args:
            probability: Predicted probabilities (n,), 0 to 1.
            is_true: Whether the predictions are true, bool (n,).
        """
        bins = np.minimum((probability * BINS).astype(int), BINS - 1)
        self.counts += np.bincount(bins, minlength=BINS)
        self.probability_sums += np.bincount(bins, weights=probability, minlength=BINS)
        self.true_counts += np.bincount(bins, weights=is_true, minlength=BINS)

    def ece(self) -> float:
        """Compute the expected calibration error, 0 to 1 (Guo et al., ICML 2017, equation 3).

        It is the mean difference between probability and frequency over the bins, weighted by their
        number of pixels; NaN without pixels.
        """
        total = self.counts.sum()
        difference = np.abs(self.probability_sums - self.true_counts).sum()
        return float(difference / total) if total else float("nan")


class Calibration:
    """Reliability of the predicted label (named "all") and of each structure's probability.

    Only pixels in a box around the heart count, as in Mehrtash et al., IEEE TMI 39(12), 2020,
    section III. Most other pixels are predicted correctly with certainty and would mask all errors.

    Args:
        dataset: Name of the dataset.

    Attributes:
        curves: Reliability by name.
    """

    def __init__(self, dataset: str):
        self.dataset = dataset
        self.curves = {name: Reliability() for name in (ALL, *DATASETS[dataset].structures)}

    def add(self, probabilities: np.ndarray, reference: np.ndarray) -> None:
        """Add the pixels of an image.

        Args:
            probabilities: Class probabilities (K, H, W) with sum 1 over the classes.
            reference: Reference label map (H, W).
        """
        box = heart_box((reference > 0) | (probabilities.argmax(0) > 0))
        if box is None:
            return
        inside = probabilities[:, *box].reshape(len(probabilities), -1)
        truth = reference[box].ravel()
        self.curves[ALL].add(inside.max(0), inside.argmax(0) == truth)
        for name, labels in DATASETS[self.dataset].structures.items():
            # Rounding can raise a sum of probabilities above 1.
            probability = inside[list(labels)].sum(0).clip(0, 1)
            self.curves[name].add(probability, np.isin(truth, labels))

    def join(self, other: Calibration) -> None:
        """Add the counts of another object."""
        for name, curve in self.curves.items():
            curve.counts += other.curves[name].counts
            curve.probability_sums += other.curves[name].probability_sums
            curve.true_counts += other.curves[name].true_counts

    def summary(self) -> dict[str, float | int]:
        """Return ece and ece_STRUCTURE (0 to 1), and the number n of pixels."""
        named = {f"ece_{name}": curve.ece() for name, curve in self.curves.items()}
        return {"ece": named.pop(f"ece_{ALL}"), **named, "n": int(self.curves[ALL].counts.sum())}


def heart_box(mask: np.ndarray) -> tuple[slice, slice] | None:
    """Return the bounding box of a mask (H, W) with `MARGIN` around it; None if it is empty."""
    if not mask.any():
        return None
    spans = []
    for axis in (1, 0):
        found = np.flatnonzero(mask.any(axis))
        first, end = int(found[0]), int(found[-1]) + 1
        margin = round(MARGIN * (end - first))
        spans.append(slice(max(first - margin, 0), end + margin))
    return spans[0], spans[1]
