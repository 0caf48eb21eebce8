"""M-mode windows of mouse hearts: the left ventricle between its two walls over time."""

from __future__ import annotations

from enum import IntEnum

from heartseg.datasets.spec import UNCHANGED, DatasetSpec, HeadlineItem, View


class Mmode(IntEnum):
    """Labels of an M-mode window."""

    BACKGROUND = 0
    LV = 1
    """Inside of the left ventricle, between the upper and the lower wall trace."""


MMODE = DatasetSpec(
    name="mmode",
    geometry="mmode",
    labels=Mmode,
    label_texts={
        "BACKGROUND": "everything else",
        "LV": "left ventricle, inside the endocardium",
    },
    structures={"LV": (Mmode.LV,)},
    mean_of=("LV",),
    contours=("LV",),
    case_metrics=("dice",),  # no distances, because the axes have different units
    headline={
        "Dice_LV": HeadlineItem("overall.LV.dice", 3, "Dice, left ventricle"),
        "LVIDd_MAE": HeadlineItem("lvidd_mm.mae", 3, "LVIDd, mean absolute error, mm"),
        "LVIDs_MAE": HeadlineItem("lvids_mm.mae", 3, "LVIDs, mean absolute error, mm"),
        "FS_bias": HeadlineItem("fs_percent.bias", 1, "fractional shortening, bias, points"),
        "FS_MAE": HeadlineItem(
            "fs_percent.mae", 1, "fractional shortening, mean absolute error, points"
        ),
        "FS_r": HeadlineItem("fs_percent.r", 2, "fractional shortening, correlation"),
        "HR_MAE": HeadlineItem("hr_bpm.mae", 1, "heart rate, mean absolute error, beats/min"),
        "unmeasured": HeadlineItem(
            "fs_percent.missing", 0, "windows in which FS cannot be measured"
        ),
        "animals": HeadlineItem("n_patients", 0, "animals"),
    },
    errors=("lvid_mae",),
    views=(UNCHANGED, View(mirror=True)),  # mirroring reverses time
    subjects="animals",
    axes=("depth (mm)", "time (s)"),
    units={
        "spacing_row": "mm",
        "spacing_col": "s",
        "reference_lvidd": "mm",
        "reference_lvids": "mm",
        "reference_hr": "1/min",
    },
    clinical={
        "lvidd_mm": "LVIDd (mm)",
        "lvids_mm": "LVIDs (mm)",
        "fs_percent": "FS (points)",
        "ef_percent": "EF by Teichholz (points)",
        "hr_bpm": "heart rate (1/min)",
    },
    charts={"lvidd_mm": ("LVIDd", "mm"), "fs_percent": ("fractional shortening", "%")},
    purpose="segments the inside of the left ventricle, between its walls, in M-mode "
    "echocardiograms",
    images="M-mode windows, PNG, mm per row and s per column",
    limits=("Lengths and heart rate depend on the given mm per row and s per column.",),
    reference="Data: Bukas et al. (Echo2Pheno), Mammalian Genome 34:200-215, 2023, "
    "doi 10.1007/s00335-023-09996-x",
)
