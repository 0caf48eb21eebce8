"""Acquisition quality of M-mode windows: whether the left ventricle can be measured."""

from __future__ import annotations

from enum import IntEnum

from heartseg.datasets.spec import DatasetSpec, HeadlineItem


class Quality(IntEnum):
    """Labels of an M-mode window.

    A label map contains the label of its window in every pixel, so loading, losses, metrics and
    packaging treat the classification like a segmentation.
    """

    GOOD = 0
    BAD = 1


MMODE_QUALITY = DatasetSpec(
    name="mmode-quality",
    task="classification",
    geometry="mmode",
    labels=Quality,
    label_texts={
        "GOOD": "every pixel of a window that can be measured",
        "BAD": "every pixel of a window that cannot",
    },
    structures={"BAD": (Quality.BAD,)},
    mean_of=("BAD",),
    contours=("BAD",),  # draws a frame around a bad window
    case_metrics=(),
    headline={
        "AUC": HeadlineItem("auc", 3, "area under the ROC curve"),
        "sensitivity": HeadlineItem("sensitivity", 3, "fraction of bad windows classified as bad"),
        "specificity": HeadlineItem(
            "specificity", 3, "fraction of good windows classified as good"
        ),
        "bad": HeadlineItem("n_bad", 0, "bad windows"),
        "windows": HeadlineItem("n_cases", 0, "windows"),
    },
    rates=("balanced_accuracy", "auc"),
    subjects="animals",
    axes=("depth (mm)", "time (s)"),
    units={"spacing_row": "mm", "spacing_col": "s"},
    purpose="classifies whether a window of an M-mode echocardiogram is good enough to be measured",
    images="M-mode windows, PNG, each labelled good or bad",
    limits=(
        "A window has one label, so a short fault in a good window is not detected. Recordings are "
        "therefore classified by overlapping windows (`heartseg recording --quality`).",
    ),
    reference="Task: Bukas et al. (Echo2Pheno), Mammalian Genome 34:200-215, 2023, in which only "
    "windows of good quality are measured",
)
