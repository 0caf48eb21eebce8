"""What the pixel values of a label map mean."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

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


class Item(NamedTuple):
    """A number of the headline."""

    key: str
    """Where report.json has it, dots between levels."""
    decimals: int
    """As many as are worth reading."""
    text: str
    """What it is, with its unit."""


HEADLINE: dict[str, dict[str, Item]] = {
    "camus": {
        "LV": Item("overall.LV.dice", 3, "Dice, left ventricle (endocardium)"),
        "MYO": Item("overall.MYO.dice", 3, "Dice, myocardium"),
        "LVepi": Item("overall.LVepi.dice", 3, "Dice, left ventricle with myocardium (epicardium)"),
        "LA": Item("overall.LA.dice", 3, "Dice, left atrium"),
        "Dice": Item("overall.mean.dice", 3, "Dice, mean of LV, MYO and LA"),
        "HD95": Item("overall.mean.hd95_mm", 1, "95th-percentile Hausdorff distance, mean, mm"),
        "EF_bias": Item("ef.ef_vs_recorded.bias", 1, "EF against the recorded one, bias, points"),
        "EF_MAE": Item(
            "ef.ef_vs_recorded.mae", 1, "EF against the recorded one, mean absolute error, points"
        ),
        "EF_r": Item("ef.ef_vs_recorded.r", 2, "EF against the recorded one, correlation"),
        "EDV_MAE": Item("ef.edv_ml.mae", 1, "EDV, mean absolute error, mL"),
        "ESV_MAE": Item("ef.esv_ml.mae", 1, "ESV, mean absolute error, mL"),
        "valid": Item("plausibility.fraction", 3, "fraction of anatomically plausible images"),
        "n": Item("n_patients", 0, "patients"),
    },
    "mmode": {
        "Dice_LV": Item("overall.LV.dice", 3, "Dice, left ventricle"),
        "LVIDd_MAE": Item("lvidd_mm.mae", 3, "LVIDd, mean absolute error, mm"),
        "LVIDs_MAE": Item("lvids_mm.mae", 3, "LVIDs, mean absolute error, mm"),
        "FS_bias": Item("fs_percent.bias", 1, "fractional shortening, bias, points"),
        "FS_MAE": Item("fs_percent.mae", 1, "fractional shortening, mean absolute error, points"),
        "FS_r": Item("fs_percent.r", 2, "fractional shortening, correlation"),
        "HR_MAE": Item("hr_bpm.mae", 1, "heart rate, mean absolute error, beats/min"),
        "unmeasured": Item("fs_percent.missing", 0, "windows in which FS cannot be measured"),
        "animals": Item("n_patients", 0, "animals"),
    },
    "mmode-quality": {
        "AUC": Item("auc", 3, "area under the ROC curve"),
        "sensitivity": Item("sensitivity", 3, "fraction of bad windows that are found"),
        "specificity": Item("specificity", 3, "fraction of good windows that pass"),
        "bad": Item("n_bad", 0, "bad windows"),
        "windows": Item("n_cases", 0, "windows"),
    },
}
"""The few numbers by which models are compared: metrics.json, the test metrics in MLflow, and what
`register.*` in params.yaml may name. Errors are against the reference masks unless the text says
otherwise. The names differ between datasets, so that DVC need not put a path before each."""


def structure_mask(labels: np.ndarray, dataset: str, structure: str) -> np.ndarray:
    """Boolean mask of one structure, of the shape of `labels`."""
    return np.isin(labels, STRUCTURES[dataset][structure])
