"""Calibration: whether of the pixels told with probability 0.8, four of five are right."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from heartseg.datasets import DATASETS

BINS = 15  # as Guo et al. have them
MARGIN = 0.1
"""Of the heart's height and width, on each side, counts too."""
ALL = "all"


@dataclass
class Reliability:
    """Counts of pixels by the probability that they were told with; add cases, divide last.

    Attributes:
        counts: (BINS,) pixels; bin i holds probabilities from i / BINS to (i + 1) / BINS.
        told: (BINS,) sum of the probabilities.
        true: (BINS,) pixels for which what was told is so.
    """

    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS))
    told: np.ndarray = field(default_factory=lambda: np.zeros(BINS))
    true: np.ndarray = field(default_factory=lambda: np.zeros(BINS))

    def add(self, probability: np.ndarray, so: np.ndarray) -> None:
        """Count some pixels.

        Args:
            probability: (n,), 0 to 1.
            so: bool (n,), whether it is so.
        """
        bins = np.minimum((probability * BINS).astype(int), BINS - 1)
        self.counts += np.bincount(bins, minlength=BINS)
        self.told += np.bincount(bins, weights=probability, minlength=BINS)
        self.true += np.bincount(bins, weights=so, minlength=BINS)

    def ece(self) -> float:
        """Expected calibration error, 0 to 1: the bins' mean distance between probability and
        frequency, weighted by their pixels (Guo et al., ICML 2017, equation 3); NaN of nothing."""
        total = self.counts.sum()
        return float(np.abs(self.told - self.true).sum() / total) if total else float("nan")


class Calibration:
    """Reliability of the predicted label (under "all") and of each structure's probability.

    Only pixels in a box around the heart count, as in Mehrtash et al., IEEE TMI 39(12), 2020,
    section III: far away from it, certain and right, lies most of an image, and would hide all.

    Attributes:
        curves: Reliability by name.
    """

    def __init__(self, dataset: str):
        self.dataset = dataset
        self.curves = {name: Reliability() for name in (ALL, *DATASETS[dataset].structures)}

    def add(self, probabilities: np.ndarray, reference: np.ndarray) -> None:
        """Count the pixels of an image.

        Args:
            probabilities: (K, H, W), sum 1.
            reference: label map (H, W).
        """
        box = heart_box((reference > 0) | (probabilities.argmax(0) > 0))
        if box is None:
            return
        told = probabilities[:, *box].reshape(len(probabilities), -1)
        real = reference[box].ravel()
        self.curves[ALL].add(told.max(0), told.argmax(0) == real)
        for name, labels in DATASETS[self.dataset].structures.items():
            # Rounding may carry a sum of probabilities beyond 1.
            together = told[list(labels)].sum(0).clip(0, 1)
            self.curves[name].add(together, np.isin(real, labels))

    def join(self, other: Calibration) -> None:
        """Count the pixels that another one has counted, too."""
        for name, curve in self.curves.items():
            curve.counts += other.curves[name].counts
            curve.told += other.curves[name].told
            curve.true += other.curves[name].true

    def summary(self) -> dict[str, float | int]:
        """ece and ece_STRUCTURE (0 to 1), and n, the pixels counted."""
        named = {f"ece_{name}": curve.ece() for name, curve in self.curves.items()}
        return {"ece": named.pop(f"ece_{ALL}"), **named, "n": int(self.curves[ALL].counts.sum())}


def heart_box(mask: np.ndarray) -> tuple[slice, slice] | None:
    """Rows and columns of a mask (H, W) with `MARGIN` around it; None where it is empty."""
    if not mask.any():
        return None
    spans = []
    for axis in (1, 0):
        found = np.flatnonzero(mask.any(axis))
        first, end = int(found[0]), int(found[-1]) + 1
        margin = round(MARGIN * (end - first))
        spans.append(slice(max(first - margin, 0), end + margin))
    return spans[0], spans[1]
