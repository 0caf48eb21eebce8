"""Quality of M-mode windows: can the left ventricle be measured in a window?"""

from __future__ import annotations

from enum import IntEnum

from heartseg.datasets.spec import DatasetSpec, HeadlineItem


class Quality(IntEnum):
    """Whether an M-mode window can be measured.

    A label map holds its window's one value in every pixel, so that a classification passes through
    the loader, the losses, the counts and the packaging as any segmentation does.
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
    contours=("BAD",),  # a bad window gets a frame
    case_metrics=(),
    headline={
        "AUC": HeadlineItem("auc", 3, "area under the ROC curve"),
        "sensitivity": HeadlineItem("sensitivity", 3, "fraction of bad windows that are found"),
        "specificity": HeadlineItem("specificity", 3, "fraction of good windows that pass"),
        "bad": HeadlineItem("n_bad", 0, "bad windows"),
        "windows": HeadlineItem("n_cases", 0, "windows"),
    },
    rates=("balanced_accuracy", "auc"),
    subjects="animals",
    axes=("depth (mm)", "time (s)"),
    units={"spacing_row": "mm", "spacing_col": "s"},
    purpose="tells whether a window of an M-mode echocardiogram is good enough to be measured",
    images="M-mode windows, PNG, each labelled good or bad",
    limits=(
        "A window gets one label: a short fault in a good one goes unnoticed, so recordings are "
        "judged by overlapping windows (`heartseg recording --quality`).",
    ),
    reference="Task: Bukas et al. (Echo2Pheno), Mammalian Genome 34:200-215, 2023: windows of good "
    "acquisition only",
)
