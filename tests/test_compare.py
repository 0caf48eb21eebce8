"""heartseg compare on a real store: evaluations written by hand, models that threshold."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from mlflow.tracking._tracking_service import utils

from heartseg import compare
from heartseg.config.params import load_params
from heartseg.data.prepared import Sample, file_digest, read_prepared, write_prepared
from heartseg.data.privacy import case_names
from heartseg.datasets.camus import Camus
from heartseg.errors import InputError
from heartseg.evaluation.cases import MeasuredCases, measure_cases
from heartseg.models.inference import STD
from heartseg.tracking.client import connect, log_evaluation
from tests.examples import ROOT
from tests.registered import register_threshold
from tests.tracking.stores import _cold_store, _own_environment

__all__ = ["_cold_store", "_own_environment"]
pytestmark = pytest.mark.slow

FRAMES = [(view, phase) for view in ("2CH", "4CH") for phase in ("ED", "ES")]
TRAINED, HELD_OUT = ("p0", "p1"), ("p2", "p3", "p4", "p5", "p6")
SHIFTS = {1: 0.0, 2: 60 / STD}  # the second model sees the LV from 60 gray levels higher on
PAGE = "compare/heartseg-camus-version-2_against_heartseg-camus-version-1.html"


def sample(patient: str, view: str, phase: str) -> Sample:
    """A bright LV with a dimmer rim that the second model misses; the rest is dark."""
    mask = np.zeros((32, 32), np.uint8)
    half = (8 if phase == "ED" else 6) + int(patient[1])
    mask[16 - half : 16 + half, 10:22] = Camus.LV
    image = np.where(mask > 0, 250, 10).astype(np.uint8)
    image[16 - half : 18 - half, 10:22] = 150
    return Sample(
        case_id=f"{patient}_{view}_{phase}",
        patient=patient,
        view=view,
        phase=phase,
        frame=0,
        image=image,
        mask=mask,
        spacing=(2.0, 2.0),
        quality="Good" if patient == "p2" else "Poor",
    )


def measure(prepared: Path, version: int) -> MeasuredCases:
    """What the model of that version does, without the model."""
    cut = 255 * 0.449 + SHIFTS[version] * STD

    def predict(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        labels = (image[0] > cut).astype(np.uint8)
        return labels, np.eye(4, dtype=np.float32)[labels].transpose(2, 0, 1)

    return measure_cases(read_prepared(prepared, "test"), "camus", predict, {})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, _cold_store: Path) -> Path:
    """A repository with a prepared dataset, and a store with two models evaluated on it."""
    place = tmp_path_factory.mktemp("compared")
    shutil.copy(ROOT / "params.yaml", place)
    shutil.copy(_cold_store, place / "mlflow.db")
    prepared = place / "data/prepared/camus.parquet"
    people = (*TRAINED, *HELD_OUT)
    split = dict.fromkeys(TRAINED, "train") | dict.fromkeys(HELD_OUT, "test")
    samples = [sample(who, *frame) for who in people for frame in FRAMES]
    write_prepared(prepared, samples, split, {"source": "made by hand"})
    uri = f"sqlite:///{place / 'mlflow.db'}"
    for version, shift in SHIFTS.items():
        register_threshold(uri, shift)
        client = connect(uri)
        run_id = client.get_model_version("heartseg-camus", str(version)).run_id
        for key, value in (("dvc.prepared_md5", file_digest(prepared)), ("git.dirty", "false")):
            client.set_tag(run_id, key, value)
        client.set_tag(run_id, "heartseg.dataset", "camus")
        weights = f"{version:032d}"
        client.set_model_version_tag(
            "heartseg-camus", str(version), "heartseg.weights_md5", weights
        )
        recipe = {"dataset": "camus", "epochs": 3 * version, "loss": "ce_dice"}
        client.log_text(run_id, yaml.safe_dump(recipe), "recipe.yaml")
        cases = {"train": {who: [] for who in TRAINED}, "val": {}, "test": {}}
        client.log_text(run_id, json.dumps(cases), "lineage/cases.json")
    return place


def evaluate_by_hand(here: Path, version: int) -> None:
    """What `heartseg evaluate` leaves in the run of a version."""
    prepared = here / "data/prepared/camus.parquet"
    measured = measure(prepared, version)
    metrics = {
        "evaluated_on": "test",
        "selected_on_it": False,
        "data_digest": file_digest(prepared),
        "weights_md5": f"{version:032d}",
    }
    (here / "report.json").write_text(json.dumps(metrics))
    measured.cases.to_csv(here / "cases.csv", index=False)
    measured.clinical.to_csv(here / "clinical.csv", index=False)
    files = [here / name for name in ("report.json", "cases.csv", "clinical.csv")]
    client = connect(f"sqlite:///{here / 'mlflow.db'}")
    tags = {"eval.weights_md5": metrics["weights_md5"]}
    log_evaluation(client, run_of(here, version), {}, files, tags=tags)


@pytest.fixture
def here(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the repository, so that a test may change it."""
    utils._artifact_repos_cache.clear()  # by the run's id: it would give those of the first one
    for name in ("data", "mlartifacts"):
        shutil.copytree(place / name, tmp_path / name)
    for name in ("params.yaml", "mlflow.db"):
        shutil.copy(place / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    for version in SHIFTS:
        evaluate_by_hand(tmp_path, version)
    return tmp_path


def run_of(here: Path, version: int) -> str:
    client = connect(f"sqlite:///{here / 'mlflow.db'}")
    return str(client.get_model_version("heartseg-camus", str(version)).run_id)


def test_two_versions(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare.main(
        ["models:/heartseg-camus/1", "models:/heartseg-camus@champion", "--out", "it.html"]
    )
    printed = capsys.readouterr().out
    page = (here / "it.html").read_text(encoding="utf-8")
    prepared = here / "data/prepared/camus.parquet"
    rows = {version: measure(prepared, version).cases for version in SHIFTS}
    means = {
        version: cases[cases["structure"] != "LVepi"].groupby("case_id")["dice"].mean().mean()
        for version, cases in rows.items()
    }
    assert means[2] < means[1]
    assert "A is better" in printed
    assert f"{means[1]:.4f} (A), {means[2]:.4f} (B), B − A {means[2] - means[1]:.4f}" in page
    assert "worse in 20 of 20 images" in page
    # nothing is fetched from elsewhere: every address is a picture within the page
    addresses = re.findall(r"(?:src|href|url\()\s*=?\s*[\"']?([^\"')> ]+)", page)
    assert len(addresses) == 1 + 2 + 4 * compare.PICTURES
    assert all(address.startswith("data:image/") for address in addresses)
    assert "<script" not in page
    assert re.search(r"<code>epochs</code></td><td>3</td><td>6</td>", page)
    assert "loss</code>" not in page
    names = case_names(load_params().privacy, prepared)
    assert names.mode == "hashed"
    assert names.shown("p2_2CH_ED") in page  # its model misses the most
    assert not re.search(r"p\d_\dCH", page)
    client = connect(f"sqlite:///{here / 'mlflow.db'}")
    logged = client.download_artifacts(run_of(here, 2), PAGE, str(here))
    assert Path(logged).read_text(encoding="utf-8") == page


def test_a_run_and_a_dataset_that_is_not_here(here: Path) -> None:
    shutil.rmtree(here / "data")
    compare.main([f"runs:/{run_of(here, 1)}", f"runs:/{run_of(here, 2)}", "--out", "it.html"])
    page = (here / "it.html").read_text(encoding="utf-8")
    assert "No pictures: data/prepared/camus.parquet does not exist" in page
    assert "p2_2CH_ED" not in page


def test_other_data_are_refused_unless_both_are_measured_again(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = "models:/heartseg-camus/1", "models:/heartseg-camus/2"
    prepared = here / "data/prepared/camus.parquet"
    split = dict.fromkeys(("p0", "p1", "p2"), "test") | {"p3": "train", "p4": "train"}
    write_prepared(prepared, [sample(w, *f) for w in split for f in FRAMES], split, {"source": "x"})
    evaluate_by_hand(here, 2)
    with pytest.raises(InputError, match=r"different data: prepared dataset .*--evaluate"):
        compare.main([first, second, "--out", "it.html"])
    assert not (here / "it.html").exists()

    compare.main([first, second, "--out", "it.html", "--evaluate"])
    page = (here / "it.html").read_text(encoding="utf-8")
    # p0 and p1 are held out here, but both models were trained on them
    assert "4 images of 1 patients" in page
    assert "2 patients left out" in page
    wanted = measure(prepared, 2).cases.query("patient == 'p2' and structure != 'LVepi'")
    assert f"{wanted['dice'].mean():.4f} (B)" in capsys.readouterr().out
    shutil.rmtree(here / "data")
    with pytest.raises(InputError, match="does not exist"):
        compare.main([first, second, "--evaluate"])


def test_what_cannot_be_compared(here: Path) -> None:
    first, second = "models:/heartseg-camus/1", "models:/heartseg-camus@champion"
    with pytest.raises(InputError, match="same model"):
        compare.main([second, "models:/heartseg-camus/2"])
    with pytest.raises(InputError, match="no version 9"):
        compare.main([first, "models:/heartseg-camus/9"])
    client = connect(f"sqlite:///{here / 'mlflow.db'}")
    client.set_model_version_tag("heartseg-camus", "1", "heartseg.tta", "views")
    with pytest.raises(InputError, match=r"another model's evaluation.*--evaluate"):
        compare.main([first, second])
    client.set_tag(run_of(here, 1), "heartseg.dataset", "mmode")
    with pytest.raises(InputError, match="mmode"):
        compare.main([first, second])


def test_names_from_the_store_do_nothing_on_the_terminal(here: Path, capsys) -> None:
    client = connect(f"sqlite:///{here / 'mlflow.db'}")
    for version in SHIFTS:
        client.update_run(run_of(here, version), name="\x1b[2J\u202e<script>\nforged")
        client.set_tag(run_of(here, version), "heartseg.recipe", "\x1b[2J<script>")
    compare.main([f"runs:/{run_of(here, 1)}", f"runs:/{run_of(here, 2)}", "--out", "it.html"])
    printed = capsys.readouterr().out
    page = (here / "it.html").read_text(encoding="utf-8")
    assert "run [2J<script> forged" in printed
    for text in (printed, page):
        assert not {"\x1b", "\u202e"} & set(text)
    assert "<script" not in page
