"""The evaluate stage, end to end, with a model whose predictions are known."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from heartseg import evaluate
from heartseg.config.params import Params, load_params
from heartseg.data.prepared import Sample, file_digest, write_prepared
from heartseg.datasets import DATASETS
from heartseg.datasets.camus import Camus
from heartseg.errors import InputError
from heartseg.metrics.plausibility import CASE_FLAGS
from heartseg.models import trained
from heartseg.models.inference import PackagedModel
from heartseg.models.trained import TrainingRecord
from heartseg.tracking.client import connect
from tests.examples import ROOT, training_record
from tests.metrics.shapes import FINE, MM_PER_ROW, S_PER_COLUMN, heart, strip
from tests.tracking.stores import _cold_store, _own_environment, new_run, store

__all__ = ["_cold_store", "_own_environment", "store"]

KINDS = ("bland_altman", "scatter")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning"),
]


class ReadsLabels(PackagedModel):
    """A packaged model whose label is the image's brightness in steps of 60, with certainty."""

    def __init__(self, labels: int) -> None:
        super().__init__(torch.nn.Identity(), 32)
        self.n_labels = labels

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        assert images.dtype == torch.uint8
        labels = (images[:, 0] // 60).long().clamp(max=self.n_labels - 1)
        return 20.0 * torch.nn.functional.one_hot(labels, self.n_labels).movedim(3, 1)


@pytest.fixture
def place(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Root of a repository with params.yaml and the data of three patients (four windows)."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    for dataset, samples in (("camus", camus_samples()), ("mmode", mmode_samples())):
        split = {sample.patient: "test" for sample in samples} | {"spare": "val"}
        write_prepared(Path(f"data/prepared/{dataset}.parquet"), samples, split, {})
        Path(f"results/{dataset}/model").mkdir(parents=True)
        Path(f"results/{dataset}/model/weights.safetensors").write_bytes(b"weights")
    pretend_trained(monkeypatch, load_params(), new_run(store))
    return tmp_path


def logged(store: str) -> tuple[dict[str, float], set[str]]:
    """Return metrics and artifacts of the only run."""
    client = connect(store)
    (run,) = client.search_runs([client.get_experiment_by_name("heartseg-camus").experiment_id])
    files = {file.path for file in client.list_artifacts(run.info.run_id, "evaluation")}
    return run.data.metrics, files


def pretend_trained(
    monkeypatch: pytest.MonkeyPatch, params: Params, run_id: str, **changes: Any
) -> None:
    def load_trained(folder: Path) -> tuple[torch.nn.Module, Any, TrainingRecord]:
        name = folder.parent.name
        digest = file_digest(f"data/prepared/{name}.parquet")
        recipe = params.recipe(name).model_copy(update=changes.pop("recipe", {}))
        about = {"recipe_name": name, "mlflow_run_id": run_id, "data_digest": digest}
        model = ReadsLabels(len(DATASETS[name].labels)).eval()
        return model, recipe, training_record(recipe, **about | changes)

    monkeypatch.setattr(trained, "load_trained", load_trained)


def camus_samples() -> list[Sample]:
    samples = []
    for patient, width in (("p1", 22), ("p2", 24), ("p3", 26), ("spare", 22)):
        for view in ("2CH", "4CH"):
            for phase, (length, part) in {"ED": (84, 1.0), "ES": (72, 0.8)}.items():
                if (patient, view) == ("p3", "4CH"):
                    continue  # a patient without a view
                mask = heart(length, width * part)
                image = mask * 60 + 30
                if (patient, view, phase) == ("p2", "2CH", "ES"):
                    image[mask == Camus.LV] = 150  # seen as myocardium: the model misses the LV
                case = f"{patient}_{view}_{phase}"
                quality = "Poor" if (patient, view) == ("p2", "4CH") else "Good"
                sample = Sample(case, patient, view, phase, 0, image, mask, FINE, quality)
                if (view, phase) != ("2CH", "ED"):  # not with the patient's first frame
                    sample.reference["reference_ef"] = 36.0  # 1 - 0.8 ** 2
                samples.append(sample)
    return samples


def mmode_samples() -> list[Sample]:
    samples = []
    spacing = (MM_PER_ROW, S_PER_COLUMN)
    for number, start in enumerate((0.1, 0.3, 0.6)):
        mask = strip(400, start=start).astype(np.uint8)
        image = mask * 60 + 30
        truth = {"reference_lvidd": 4.0, "reference_lvids": 2.4}
        name = f"m{number}"
        samples.append(Sample(name, name, "", "", 0, image, mask, spacing, "", truth))
    return samples


@pytest.mark.slow
def test_camus(place: Path, store: str, capsys: pytest.CaptureFixture[str]) -> None:
    results = place / "results/camus"
    Path(results / "figures").mkdir()
    (results / "figures/stale.png").touch()
    history = {"epoch": [1], "train_loss": [0.5], "val_loss": [0.6], "dice_mean": [0.7]}
    pd.DataFrame(history | {"learning_rate": [0.001]}).to_csv(results / "history.csv")
    evaluate.main(["camus"])

    metrics = json.loads((results / "report.json").read_text())
    assert (metrics["evaluated_on"], metrics["selected_on_it"]) == ("test", False)
    assert (metrics["n_patients"], metrics["n_cases"]) == (3, 10)
    assert metrics["data_digest"] == file_digest("data/prepared/camus.parquet")
    assert metrics["overall"]["LA"]["dice"] == 1.0
    assert metrics["overall"]["LA"]["hd95_mm"] == 0.0
    assert metrics["overall"]["LV"]["dice"] == pytest.approx(0.9)  # one of ten missed
    assert metrics["overall"]["LV"]["missed"] == 1
    assert metrics["overall"]["LVepi"]["dice"] == 1.0
    assert metrics["by_view"]["4CH"]["LV"]["dice"] == 1.0
    assert metrics["ef"]["ef_vs_reference"]["n"] == 1  # p3 has no 4CH, p2 no LV to measure
    assert metrics["ef"]["ef_vs_reference"]["missing"] == 1
    assert metrics["ef"]["ef_vs_reference"]["mae"] == 0.0
    assert metrics["ef"]["ef_vs_recorded"]["bias"] == pytest.approx(
        0.0, abs=1.0
    )  # not 8 points off

    cases = pd.read_csv(results / "cases.csv")
    assert list(cases) == [
        *("case_id", "patient", "view", "phase", "quality", "structure"),
        *("dice", "hd95_mm", "msd_mm", "missed", "uncertainty"),
        *CASE_FLAGS,
        "plausible",
    ]
    assert len(cases) == 40
    odd = cases[~cases["plausible"]].drop_duplicates("case_id")
    assert list(odd["case_id"]) == ["p2_2CH_ES"]
    assert list(odd["incomplete"]) == [True]
    assert metrics["plausibility"]["fraction"] == 0.9
    assert metrics["plausibility"]["volumes"]["n"] == 2
    assert metrics["plausibility"]["by_phase"]["ED"]["fraction"] == 1.0
    assert metrics["postprocess"]["chosen"] == "none"  # no better on the spare patient
    assert metrics["postprocess"]["chosen_on"] == "val"
    assert metrics["tta"]["chosen"] == "none"  # the views are not worth five passes
    assert metrics["tta"]["val_dice"]["none"] == metrics["tta"]["val_dice"]["views"]
    assert (metrics["networks"], metrics["views"]) == (1, 1)
    # Sure of everything and wrong about one LV: the error is the part of wrong pixels.
    assert metrics["calibration"]["ece_LA"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["calibration"]["ece"] == metrics["calibration"]["ece_LV"] > 0.001
    assert metrics["uncertainty"]["max"] < 1e-3
    missed = cases[cases["missed"]]
    assert list(missed["case_id"]) == ["p2_2CH_ES"]
    ef = pd.read_csv(results / "clinical.csv").set_index("patient")
    assert list(ef.index) == ["p1", "p2"]
    assert ef.loc["p1", "edv_ml_predicted"] == pytest.approx(
        2 / 3 * np.pi * 22**2 * 84 / 1000, rel=0.01
    )
    assert np.isnan(ef.loc["p2", "ef_percent_predicted"])
    assert ef.loc["p2", "edv_ml_predicted"] == ef.loc["p2", "edv_ml_reference"]
    assert metrics["ef"]["edv_ml"]["missing"] == 0
    assert list(ef["ef_percent_recorded"]) == [36.0, 36.0]
    assert list(ef["quality"]) == ["Good", "Good/Poor"]
    assert set(metrics["ef_by_quality"]) == {"Good", "Poor"}
    assert metrics["ef_classes"]["ef_vs_reference"]["50"]["accuracy"] == 1.0
    assert ef.loc["p1", "la_volume_ml_predicted"] == ef.loc["p1", "la_volume_ml_reference"]
    names = {path.stem for path in (results / "figures").iterdir()}
    assert names == {
        *("overlay_best", "overlay_median", "overlay_worst", "targets_median", "box_plots"),
        *("calibration", "uncertainty", "uncertainty_worst"),
        *(
            f"{name}_{kind}"
            for name in ("ef_percent", "ef_percent_recorded", "edv_ml", "esv_ml")
            for kind in KINDS
        ),
        "training_curves",
    }
    assert not list(results.glob(".*"))  # no temporary file stays
    numbers, files = logged(store)
    assert numbers["test/LV"] == pytest.approx(0.9)
    shown = json.loads((results / "metrics.json").read_text())
    sent = {key.removeprefix("test/"): value for key, value in numbers.items()}
    assert shown == pytest.approx(sent, abs=0.05)  # rounded as a person reads them
    assert (shown["LV"], shown["LA"], shown["n"], shown["valid"]) == (0.9, 1.0, 3, 0.9)
    assert files == {
        f"evaluation/{name}" for name in ("report.json", "cases.csv", "clinical.csv", "figures")
    }
    told = capsys.readouterr().out
    told = {line.split()[0]: line.split()[1] for line in told.splitlines() if line[:2] == "  "}
    assert (told["LV"], told["EF_bias"], told["valid"]) == ("0.900", str(shown["EF_bias"]), "0.900")


@pytest.mark.slow
def test_islands_are_removed_where_that_helps(place: Path) -> None:
    samples = [sample for sample in camus_samples() if sample.patient in ("p1", "spare")]
    for sample in samples:
        sample.image[:20, :20] = 90  # seen as LV
    split = {sample.patient: "test" for sample in samples} | {"spare": "val"}
    write_prepared(Path("data/prepared/camus.parquet"), samples, split, {})
    evaluate.main(["camus"])
    metrics = json.loads((place / "results/camus/report.json").read_text())
    assert metrics["postprocess"]["chosen"] == "largest_component"
    dice = metrics["postprocess"]["val_dice"]
    assert dice["none"] < dice["largest_component"] == 1.0


def test_mmode(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate.main(["mmode"])
    assert re.search(r"HR_MAE +0\.0 ", capsys.readouterr().out)
    metrics = json.loads((place / "results/mmode/report.json").read_text())
    assert metrics["overall"]["LV"]["dice"] == 1.0
    assert metrics["hr_bpm"]["mae"] == 0.0
    assert metrics["truth"]["lvidd_mm"]["mae"] == pytest.approx(0.0, abs=0.1)
    assert metrics["truth"]["fs_percent"]["bias"] == pytest.approx(0.0, abs=2.0)
    windows = pd.read_csv(place / "results/mmode/clinical.csv")
    assert list(windows["case_id"]) == ["m0", "m1", "m2"]
    assert windows["hr_bpm_predicted"].to_numpy() == pytest.approx(450.0, rel=0.05)
    assert windows["hr_bpm_true"].isna().all()


def test_mmode_of_humans(place: Path) -> None:
    samples = mmode_samples()
    for number, sample in enumerate(samples):
        truth = {"reference_lvidd": 48.0, "reference_lvids": 28.8}
        spacing = (12 * MM_PER_ROW, 6 * S_PER_COLUMN)
        samples[number] = replace(sample, spacing=spacing, reference=truth)
    split = {sample.patient: "test" for sample in samples}
    facts = {"species": "human"}
    write_prepared(Path("data/prepared/mmode.parquet"), samples, split, facts)
    evaluate.main(["mmode"])
    windows = pd.read_csv(place / "results/mmode/clinical.csv")
    assert windows["hr_bpm_predicted"].to_numpy() == pytest.approx(75.0, rel=0.05)
    edv, esv = 7 / (2.4 + 4.8) * 4.8**3, 7 / (2.4 + 2.88) * 2.88**3
    assert windows["ef_percent_true"].to_numpy() == pytest.approx(100 * (edv - esv) / edv)
    cm = windows[["lvidd_mm_predicted", "lvids_mm_predicted"]] / 10
    edv, esv = (7 / (2.4 + cm[name]) * cm[name] ** 3 for name in cm)
    measured = windows["ef_percent_predicted"].to_numpy()
    assert measured == pytest.approx((100 * (edv - esv) / edv).to_numpy(), abs=0.5)


@pytest.mark.slow
def test_a_second_run_gives_the_same_bytes(place: Path) -> None:
    evaluate.main(["mmode"])
    folder = place / "results/mmode"
    first = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    evaluate.main(["mmode"])
    assert first == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("select", "tta", "selected"),
    [("best", "none", True), ("last", "none", False), ("last", "auto", True)],
)
def test_val_stands_in_for_an_empty_test_split(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    select: str,
    tta: str,
    selected: bool,
) -> None:
    samples = mmode_samples()
    split = {sample.patient: "val" for sample in samples}
    write_prepared(place / "data/prepared/mmode.parquet", samples, split, {})
    pretend_trained(monkeypatch, load_params(), "gone", recipe={"select": select})
    (place / "params.yaml").write_text(
        (place / "params.yaml").read_text().replace("tta: auto", f"tta: {tta}")
    )
    evaluate.main(["mmode"])
    metrics = json.loads((place / "results/mmode/report.json").read_text())
    assert metrics["evaluated_on"] == "val"
    assert metrics["selected_on_it"] == selected
    assert "no test patients; evaluating on val" in capsys.readouterr().out


def test_nothing_held_out_is_told(place: Path) -> None:
    samples = mmode_samples()
    split = {sample.patient: "train" for sample in samples}
    write_prepared(place / "data/prepared/mmode.parquet", samples, split, {})
    with pytest.raises(InputError, match="neither test nor val"):
        evaluate.main(["mmode"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"recipe_name": "other"}, "by recipe other"), ({"data_digest": "0"}, "is not the dataset")],
)
def test_a_model_of_something_else_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], reason: str
) -> None:
    pretend_trained(monkeypatch, load_params(), "gone", **change)
    with pytest.raises(InputError, match=reason):
        evaluate.main(["mmode"])
    assert not (place / "results/mmode/report.json").exists()


@pytest.mark.slow
def test_a_failure_leaves_the_last_results(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate.main(["mmode"])
    folder = place / "results/mmode"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def broken(*_: Any) -> None:
        raise RuntimeError("no space left")

    monkeypatch.setattr(ReadsLabels, "labels", lambda self, logits: logits.argmax(1) * 0)
    monkeypatch.setattr("heartseg.report.figures.save", broken)
    with pytest.raises(RuntimeError, match="no space"):
        evaluate.main(["mmode"])
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert before == after
