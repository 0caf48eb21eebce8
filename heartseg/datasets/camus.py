"""CAMUS: apical two- and four-chamber views (Leclerc et al., IEEE TMI 38(9), 2019)."""

from __future__ import annotations

from enum import IntEnum

from heartseg.datasets.spec import UNCHANGED, DatasetSpec, HeadlineItem, View

VIEWS, PHASES = ("2CH", "4CH"), ("ED", "ES")


class Camus(IntEnum):
    """Labels of the CAMUS release."""

    BACKGROUND = 0
    LV = 1
    """Cavity of the left ventricle, inside the endocardium."""
    MYO = 2
    """Myocardium of the left ventricle, between endocardium and epicardium."""
    LA = 3
    """Left atrium."""


CAMUS = DatasetSpec(
    name="camus",
    geometry="apical",
    labels=Camus,
    label_texts={
        "BACKGROUND": "everything else",
        "LV": "left ventricle, inside the endocardium",
        "MYO": "myocardium of the left ventricle",
        "LA": "left atrium",
    },
    structures={  # papers differ in which of MYO and LVepi they report
        "LV": (Camus.LV,),
        "MYO": (Camus.MYO,),
        "LVepi": (Camus.LV, Camus.MYO),
        "LA": (Camus.LA,),
    },
    mean_of=("LV", "MYO", "LA"),
    contours=("LV", "LVepi", "LA"),  # the outline of MYO would repeat the endocardium
    case_metrics=("dice", "hd95_mm", "msd_mm"),
    headline={
        "LV": HeadlineItem("overall.LV.dice", 3, "Dice, left ventricle (endocardium)"),
        "MYO": HeadlineItem("overall.MYO.dice", 3, "Dice, myocardium"),
        "LVepi": HeadlineItem(
            "overall.LVepi.dice", 3, "Dice, left ventricle with myocardium (epicardium)"
        ),
        "LA": HeadlineItem("overall.LA.dice", 3, "Dice, left atrium"),
        "Dice": HeadlineItem("overall.mean.dice", 3, "Dice, mean of LV, MYO and LA"),
        "HD95": HeadlineItem(
            "overall.mean.hd95_mm", 1, "95th-percentile Hausdorff distance, mean, mm"
        ),
        "EF_bias": HeadlineItem(
            "ef.ef_vs_recorded.bias", 1, "EF against the recorded EF, bias, points"
        ),
        "EF_MAE": HeadlineItem(
            "ef.ef_vs_recorded.mae", 1, "EF against the recorded EF, mean absolute error, points"
        ),
        "EF_r": HeadlineItem("ef.ef_vs_recorded.r", 2, "EF against the recorded EF, correlation"),
        "EDV_MAE": HeadlineItem("ef.edv_ml.mae", 1, "EDV, mean absolute error, mL"),
        "ESV_MAE": HeadlineItem("ef.esv_ml.mae", 1, "ESV, mean absolute error, mL"),
        "valid": HeadlineItem(
            "plausibility.fraction", 3, "fraction of anatomically plausible images"
        ),
        "n": HeadlineItem("n_patients", 0, "patients"),
    },
    errors=("ef_mae",),
    views=(  # not mirrored, because this would exchange septum and lateral wall
        UNCHANGED,
        View(rotate_degrees=5),
        View(rotate_degrees=-5),
        View(scale=0.95),
        View(scale=1.05),
    ),
    postprocesses=("none", "largest_component"),
    subjects="patients",
    axes=("mm", "mm"),
    units={
        "spacing": "mm",
        "reference_ef": "percent",
        "reference_edv": "mL",
        "reference_esv": "mL",
    },
    clinical={
        "ef.ef_vs_reference": "EF against the reference masks (points)",
        "ef.ef_vs_recorded": "EF against the recorded EF (points)",
        "ef.edv_ml": "EDV against the reference masks (mL)",
        "ef.esv_ml": "ESV against the reference masks (mL)",
        "ef.edv_true_ml": "EDV against the recorded EDV (mL)",
        "ef.esv_true_ml": "ESV against the recorded ESV (mL)",
    },
    charts={
        "ef_percent": ("ejection fraction", "%"),
        "ef_percent_recorded": ("recorded EF", "%"),
        "edv_ml": ("end-diastolic volume", "mL"),
        "esv_ml": ("end-systolic volume", "mL"),
    },
    purpose="segments the cavity and the myocardium of the left ventricle, and the left atrium, in "
    "apical two- and four-chamber echocardiograms",
    images="B-mode frames at end-diastole and end-systole, NIfTI, spacing in mm",
    limits=("The model also returns a label map for views other than apical 2CH and 4CH.",),
    licence="The CAMUS data may be used for non-commercial research (CC BY-NC-SA 4.0).",
    reference="Data: Leclerc et al., IEEE TMI 38(9):2198-2210, 2019, doi 10.1109/TMI.2019.2900516",
)
