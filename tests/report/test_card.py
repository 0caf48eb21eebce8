"""The model card tells what is known, for both datasets and with gaps."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest

from heartseg.config.params import load_params
from heartseg.metrics.plausibility import PATIENT_FLAGS
from heartseg.report.card import model_card
from tests.examples import training_record

CAMUS_METRICS: dict[str, Any] = {
    "overall": {
        "LV": {
            **{"dice": 0.9234, "dice_low": 0.9101, "dice_high": 0.9366},
            **{"hd95_mm": 4.567, "hd95_mm_low": 4.0, "hd95_mm_high": 5.1},
            **{"msd_mm": 1.234, "msd_mm_low": None, "msd_mm_high": None},
        },
        "MYO": {"dice": 0.85, "dice_low": 0.84, "dice_high": 0.86, "hd95_mm": None},
        "LVepi": {"dice": 0.95, "dice_low": 0.94, "dice_high": 0.96},
        "LA": {"dice": math.nan, "dice_low": math.nan, "dice_high": math.nan},
        "mean": {"dice": 0.8876},
    },
    "by_view": {
        "2CH": {"LV": {"dice": 0.91, "dice_low": 0.89, "dice_high": 0.93}, "MYO": {"dice": None}},
        "4CH": None,
    },
    "by_quality": {},
    "ef": {
        "ef_vs_reference": {
            **{"bias": -1.234, "bias_low": -2.5, "bias_high": 0.1},
            **{"mae": 4.5, "mae_low": 3.75, "mae_high": 5.25},
            "r": 0.87,
            "icc": 0.81,
            "loa_low": -10.1,
            "loa_high": 7.6,
            "n": 49,
            "missing": 1,
        },
        "ef_vs_recorded": None,
    },
    "ef_by_quality": {
        "Good": {
            "ef_vs_reference": {"mae": 4.25, "r": 0.9, "n": 30},
            "ef_vs_recorded": {"mae": 5.0, "r": None, "n": 1},
            "edv_ml": {"mae": 8.0, "r": 0.95, "n": 30},
        },
    },
    "ef_classes": {
        "ef_vs_reference": {
            "40": {
                **{"true_below": 7, "false_below": 1, "false_above": 2, "true_above": 39},
                **{"accuracy": 0.9388, "kappa": 0.786},
            },
        },
    },
    "plausibility": {
        **{"n": 198, "fraction": 0.95, "fraction_low": 0.92, "fraction_high": 0.98},
        "flags": {"holes": 3, "edge": 0},
        "by_view": {"2CH": {"n": 99, "fraction": 0.94}},
        "volumes": {
            **{"n": 49, "plausible": 47},
            "flags": {"edge": 2, "size": 0, "scales_differ": 0, "phases": 0},
        },
    },
    "postprocess": {
        **{"chosen": "largest_component", "chosen_on": "val"},
        "val_dice": {"none": 0.9012, "largest_component": 0.9034},
    },
    "evaluated_on": "test",
    "n_patients": 50,
    "n_cases": 198,
    "data_digest": "aaaa1111",
}
MMODE_METRICS: dict[str, Any] = {
    "overall": {"LV": {"dice": 0.97, "dice_low": 0.96, "dice_high": 0.98}},
    "lvidd_mm": {"bias": 0.01, "mae": 0.1, "r": 0.99, "loa_low": -0.2, "loa_high": 0.2, "n": 36},
    "hr_bpm": {"bias": None, "mae": None, "r": None, "loa_low": None, "loa_high": None, "n": 0},
    "evaluated_on": "val",
    "selected_on_it": True,
    "n_patients": 6,
    "n_cases": 36,
    "data_digest": "aaaa1111",
}


def card(
    dataset: str, metrics: dict[str, Any], recipe: str | None = None, **more_facts: Any
) -> str:
    typed = load_params().recipe(recipe or dataset)
    values = typed.model_dump(mode="json")
    training = training_record(
        typed,
        recipe_name=dataset,
        epoch=17,
        mlflow_run_id="run123",
        experiment=f"heartseg-{dataset}",
        tags={"git.commit": "c0ffee", "dvc.source_md5": "beef.dir", "mlflow.user": "somebody"},
    )
    facts = {
        "source": "data/phantoms/camus",  # a path says nothing about what lies there
        "split": {"method": "auto", "lists": True, "seed": 0},
        "patients": {"train": 225, "val": 25, "test": 50},
        "cases": {"train": 898, "val": 100, "test": 198},
        "skipped": ["x.nii.gz: truncated"],
        **more_facts,
    }
    registered = {
        "name": f"heartseg-{dataset}",
        "version": "3",
        "alias": "champion",
        "reason": "there was no champion",
        "weights_md5": "feed",
    }
    return model_card(values, metrics, training, facts, registered)


def rows(text: str) -> dict[str, list[str]]:
    """Rows of all tables by their first cell."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return {cells[0]: cells[1:] for cells in lines}


def test_results_with_intervals_units_and_gaps():
    found = rows(card("camus", CAMUS_METRICS))
    assert found["structure"] == ["Dice (0 to 1)", "HD95 (mm)", "mean surface distance (mm)"]
    assert found["LV"] == ["0.923 [0.910 to 0.937]", "4.57 [4.00 to 5.10]", "1.23"]
    assert found["MYO"] == ["0.850 [0.840 to 0.860]", "–", "–"]
    assert found["LA"] == ["–", "–", "–"]
    assert found["mean"] == ["0.888", "–", "–"]
    assert found["EF against the reference masks (points)"] == [
        "-1.23 [-2.50 to 0.10]",
        "4.50 [3.75 to 5.25]",
        "0.87",
        "0.81",
        "-10.10 to 7.60",
        "49",
        "1",
    ]
    assert found["measurement"][-1] == "not measured"
    assert "EF against the recorded EF (points)" not in found
    assert found["view 2CH"] == ["0.910 [0.890 to 0.930]", "–", "–", "–"]
    assert "view 4CH" not in found


def test_clinical_section_of_camus():
    text = card("camus", CAMUS_METRICS)
    found = rows(text)
    assert found["image quality"][0] == "EF against masks (points)"
    assert found["Good"] == ["4.25 (0.90, 30)", "5.00 (–, 1)", "8.00 (0.95, 30)", "– (–, –)"]
    row = found["EF against masks, below 40 %"]
    assert row == ["0.939", "0.79", "7", "1", "2", "39"]
    assert found["all"] == ["198", "0.95 [0.92 to 0.98]"]
    assert found["2CH"] == ["99", "0.94"]
    assert found["a structure has a hole"] == ["3"]
    assert found[PATIENT_FLAGS["edge"]] == ["2"]
    assert "47 of 49 patients" in text
    assert "largest component (mean Dice 0.9012 without, 0.9034 with" in text
    assert "on the same grid, of each structure its largest connected part" in text
    assert "r 0.80 and 5.6 points in EF" in text
    plain = card("camus", CAMUS_METRICS | {"postprocess": {"chosen": "none"}})
    assert "largest" not in plain


def test_certainty_section():
    doubt: dict[str, Any] = {
        "calibration": {"ece": 0.0213, "ece_LV": 0.0104, "ece_LA": None, "n": 12345},
        "uncertainty": {"n": 198, "mean": 0.071, "max": 0.4, "spearman_dice": -0.61},
        "tta": {
            **{"chosen": "views", "chosen_on": "out-of-fold"},
            "val_dice": {"none": 0.9, "views": 0.91},
        },
        "networks": 3,
        "views": 5,
    }
    text = card("camus", CAMUS_METRICS | doubt)
    assert rows(text)["predicted label"] == ["0.0213"]
    assert (rows(text)["LV"][0], rows(text)["LA"]) == ("0.0104", ["–"])  # the last table's
    assert "12345 pixels" in text
    assert "correlation with the case's mean Dice (Spearman, -1 to 1" in text
    assert "-0.61, n = 198 images" in text
    assert "augmentation was selected: mean Dice (0 to 1) 0.9000 without and 0.9100 with it" in text
    assert "3 network(s) and 5 view(s) of the image: 15 forward passes" in text
    assert "## Certainty" not in card("camus", CAMUS_METRICS)
    assert "forward passes" not in card("camus", CAMUS_METRICS)


def test_mmode_card():
    text = card("mmode", MMODE_METRICS)
    found = rows(text)
    assert found["structure"] == ["Dice (0 to 1)"]
    assert found["LVIDd (mm)"] == ["0.01", "0.10", "0.99", "–", "-0.20 to 0.20", "36", "–"]
    assert found["heart rate (1/min)"] == ["–", "–", "–", "–", "–", "0", "–"]
    assert "36 images of 6 animals of the val split" in text
    assert "optimistic" in text  # evaluated on the split that chose the epoch
    assert "optimistic" not in card("mmode", MMODE_METRICS | {"selected_on_it": False})
    assert "QuickNAT, NeuroImage" in text
    assert "LVepi" not in text


def test_quality_card():
    metrics = {
        **{"n_cases": 136, "n_patients": 24, "n_bad": 50, "evaluated_on": "test"},
        **{"auc": 0.969, "auc_low": 0.943, "auc_high": 0.992, "sensitivity": 0.92},
        **{"sensitivity_low": 0.8, "sensitivity_high": 1.0, "specificity": None},
        "confusion": {
            **{"bad_called_bad": 46, "bad_called_good": 4},
            **{"good_called_good": 81, "good_called_bad": 5},
        },
    }
    text = card("mmode-quality", metrics)
    found = rows(text)
    assert found["area under the ROC curve"] == ["0.97 [0.94 to 0.99]"]
    assert found["sensitivity for bad"] == ["0.92 [0.80 to 1.00]"]
    assert found["specificity (good ones let pass)"] == ["–"]
    assert (found["good"], found["bad"]) == (["81", "5"], ["4", "46"])
    assert "136 windows of 24 animals of the test split, 50 of them bad" in text
    assert found["1"] == ["BAD", "every pixel of a window that cannot"]


def test_a_metric_that_is_zero_everywhere_is_shown():
    zero = {"dice": 0.0, "dice_low": 0.0, "dice_high": 0.0}
    metrics = MMODE_METRICS | {"overall": {"LV": zero}}
    found = rows(card("mmode", metrics))
    assert found["structure"] == ["Dice (0 to 1)"]
    assert found["LV"] == ["0.000 [0.000 to 0.000]"]
    perfect = {name: {"dice": 1.0, "hd95_mm": 0.0} for name in CAMUS_METRICS["overall"]}
    found = rows(card("camus", CAMUS_METRICS | {"overall": perfect}))
    assert found["structure"] == ["Dice (0 to 1)", "HD95 (mm)"]
    assert found["MYO"] == ["1.000", "0.00"]


def test_labels_usage_and_lineage():
    text = card("camus", CAMUS_METRICS)
    found = rows(text)
    assert [found[value][0] for value in "0123"] == ["BACKGROUND", "LV", "MYO", "LA"]
    code = text.split("```python\n")[1].split("\n```")[0]
    assert len(code.splitlines()) == 3
    assert 'mlflow.pyfunc.load_model("models:/heartseg-camus/3")' in code
    compile(code, "card", "exec")
    assert "uint8 (N, 1, H, W)" in text
    assert "Not a medical device" in text
    assert found["git.commit"] == ["c0ffee"]
    assert found["dvc.source_md5"] == ["beef.dir"]
    assert found["MLflow run"] == ["run123"]
    assert "somebody" not in text
    assert found["test"] == ["50", "198"]
    assert "Left out as faulty: 1" in text


def test_stacked_frames_are_explained():
    assert "half sequence" not in card("camus", CAMUS_METRICS)
    text = card("camus", CAMUS_METRICS, recipe="camus-source")
    assert "20 channels are a half sequence, resampled to 20" in text
    assert "uint8 (N, 20, H, W)" in text


def test_recipe_is_whole():
    recipe = load_params().recipe("camus").model_dump(mode="json")
    found = rows(card("camus", CAMUS_METRICS))
    assert found["model.backbone"] == [recipe["model"]["backbone"]]
    assert found["augment.rotate_degrees"] == [str(recipe["augment"]["rotate_degrees"])]
    assert found["class_weights"] == ["–"]
    assert all(key in found for key in recipe if key not in ("model", "augment"))


def test_phantoms_and_other_evaluation_data_are_said_aloud():
    real = card("camus", CAMUS_METRICS)
    assert "synthetic" not in real
    assert "non-commercial" in real
    synthetic = card("camus", CAMUS_METRICS, synthetic=True)
    assert "Trained on synthetic phantoms" in synthetic
    assert "non-commercial" not in synthetic
    assert "Leclerc" not in synthetic
    assert "Leclerc" in real
    other = copy.deepcopy(CAMUS_METRICS) | {"data_digest": "bbbb2222"}
    assert "Evaluated on other data" in card("camus", other)
    assert "Evaluated on other data" not in real


@pytest.mark.parametrize(
    ("dataset", "metrics"), [("camus", CAMUS_METRICS), ("mmode", MMODE_METRICS)]
)
def test_no_metric_at_all_and_well_formed_tables(dataset: str, metrics: dict[str, Any]):
    def emptied(value: Any) -> Any:
        return {k: emptied(v) for k, v in value.items()} if isinstance(value, dict) else None

    nothing = emptied(metrics) | {"evaluated_on": "test"}
    for text in (card(dataset, metrics), card(dataset, json.loads(json.dumps(nothing)))):
        assert "nan" not in text
        assert "None" not in text
        blocks = [b for b in text.split("\n\n") if b.startswith("|")]
        assert len(blocks) >= 4
        for block in blocks:  # Markdown shows a table only where all rows have as many cells
            assert len({line.replace("\\|", "").count("|") for line in block.splitlines()}) == 1
