"""What the pixel values of a label map mean."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Camus(IntEnum):
    """Labels of the CAMUS release (Leclerc et al., IEEE TMI 38(9), 2019)."""

    BACKGROUND = 0
    LV = 1
    """Left ventricle's cavity, inside the endocardium."""
    MYO = 2
    """Left ventricle's myocardium: the ring between endocardium and epicardium."""
    LA = 3
    """Left atrium."""


class Mmode(IntEnum):
    """Labels of an M-mode window."""

    BACKGROUND = 0
    LV = 1
    """Left ventricle's inside, between the upper and the lower wall trace."""


class Quality(IntEnum):
    """Whether an M-mode window can be measured.

    A label map holds its window's one value in every pixel: so a classification passes through
    the loader, the losses, the counts and the packaging as any segmentation does.
    """

    GOOD = 0
    BAD = 1


LABELS: dict[str, type[IntEnum]] = {"camus": Camus, "mmode": Mmode, "mmode-quality": Quality}

STRUCTURES: dict[str, dict[str, tuple[int, ...]]] = {
    "camus": {
        "LV": (Camus.LV,),
        "MYO": (Camus.MYO,),
        "LVepi": (Camus.LV, Camus.MYO),
        "LA": (Camus.LA,),
    },
    "mmode": {"LV": (Mmode.LV,)},
    "mmode-quality": {"BAD": (Quality.BAD,)},
}
"""Reported structures and the labels that make them up, by dataset. LVepi stands beside MYO
because papers differ in which of the two they report."""


def structure_mask(labels: np.ndarray, dataset: str, structure: str) -> np.ndarray:
    """Boolean mask of one structure, of the shape of `labels`."""
    return np.isin(labels, STRUCTURES[dataset][structure])
