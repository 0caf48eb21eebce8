"""`heartseg crossval`, killed in its second fold and continued."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from heartseg import crossval
from heartseg.config.params import load_params
from heartseg.data.prepared import Sample, decode_image, file_digest, read_prepared, write_prepared
from heartseg.errors import InputError
from heartseg.folds import job
from heartseg.tracking import pulled, registry
from heartseg.tracking.client import connect
from heartseg.training.journal import JOURNAL, read_progress
from tests.clones import environment, run
from tests.examples import ROOT, disks, small_recipe
from tests.processes import wait_until

SOURCE = {"PYTHONPATH": str(ROOT)}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EPOCHS = 6
COMMAND = [sys.executable, "-m", "heartseg.crossval", "camus", "--folds", "2", "--in-process"]


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """Prepared disks, three images per patient: 24 training, 3 validation and 6 test patients."""
    place = tmp_path_factory.mktemp("crossval")
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    recipe = small_recipe(load_params(ROOT / "params.yaml"), epochs=EPOCHS)
    content["recipes"]["camus"] = recipe.model_dump(mode="json")
    content["tracking"]["system_metrics"] = False
    content["register"]["camus"]["floor"] = {}
    (place / "params.yaml").write_text(yaml.safe_dump(content))
    splits, samples = {}, []
    for number, (image, mask) in enumerate(zip(*disks(99), strict=True)):
        patient = number // 3
        name = f"p{patient:02d}"
        splits[name] = "train" if patient < 24 else "val" if patient < 27 else "test"
        case = f"{name}_{number}"
        samples.append(Sample(case, name, "4CH", "ED", number, image[0], mask, (1.0, 1.0)))
    counts = {"train": 24, "val": 3, "test": 6}
    facts = {"source": "disks", "dataset": "camus", "synthetic": True, "patients": counts}
    facts |= {"cases": {key: 3 * value for key, value in counts.items()}, "notes": []}
    facts |= {"split": {"method": "by hand"}, "skipped": []}
    write_prepared(place / "data/prepared/camus.parquet", samples, splits, facts)
    return place


def asked_to_end(place: Path) -> None:
    """SIGTERM in the first fold leaves a checkpoint, and no run that is RUNNING."""
    driver = subprocess.Popen(
        COMMAND, cwd=place, env=environment(place) | SOURCE,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_until(lambda: list(place.glob("runs/camus-crossval-*/fold0/progress.json")))
    driver.send_signal(signal.SIGTERM)
    said = driver.communicate(timeout=120)[1]
    assert driver.returncode == 143, said
    assert "Traceback" not in said
    client = connect(f"sqlite:///{place}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("heartseg-camus").experiment_id])
    assert [one.info.status for one in runs] == ["KILLED", "KILLED"]
    assert list(place.glob("runs/camus-crossval-*/fold0/checkpoints/*.pt"))


def test_killed_and_run_again(repository):
    asked_to_end(repository)
    driver = subprocess.Popen(
        COMMAND, cwd=repository, env=environment(repository) | SOURCE,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while True:  # until the second fold is being trained
        assert driver.poll() is None, "it ended before it could be killed"
        folders = list((repository / "runs").glob("camus-crossval-*/fold1"))
        if folders and (now := read_progress(folders[0])) and now["epoch"] > 2:
            break
        time.sleep(0.02)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    first = folders[0].with_name("fold0")
    before = [file_digest(first / name) for name in ("model/weights.safetensors", JOURNAL)]

    told = run(COMMAND, repository, extra=SOURCE)

    after = [file_digest(first / name) for name in ("model/weights.safetensors", JOURNAL)]
    assert after == before  # no epoch was repeated
    results = repository / "results/crossval/camus"
    found = json.loads((results / "crossval.json").read_text())
    client = connect(f"sqlite:///{repository}/mlflow.db")
    experiment = client.get_experiment_by_name("heartseg-camus").experiment_id
    runs = client.search_runs([experiment])
    assert [one.info.status for one in runs] == ["FINISHED"] * 3  # each once
    (parent,) = [one for one in runs if "mlflow.parentRunId" not in one.data.tags]
    children = {one.data.tags["heartseg.fold"]: one for one in runs if one is not parent}
    assert {c.data.tags["mlflow.parentRunId"] for c in children.values()} == {parent.info.run_id}
    for one in children.values():
        history = client.get_metric_history(one.info.run_id, "val_loss")
        assert [point.step for point in history] == list(range(1, EPOCHS + 1))

    # Each patient that is not held out was segmented once, by a network not trained on it.
    frames = read_prepared(repository / "data/prepared/camus.parquet")
    cases = pd.read_csv(results / "out_of_fold.csv")
    once = cases.groupby("case_id")["fold"].nunique()
    held_out = set(frames.loc[frames["split"] == "test", "case_id"])
    assert set(once.index) == set(frames["case_id"]) - held_out
    assert (once == 1).all()
    assert cases.groupby("patient")["fold"].nunique().max() == 1
    assert [fold["images"] for fold in found["folds"]] == [39, 42]
    dice = [fold["metrics"]["LV"] for fold in found["folds"]]
    assert found["mean"]["LV"] == pytest.approx(np.mean(dice), abs=1e-5)
    assert found["sd"]["LV"] == pytest.approx(np.std(dice, ddof=1), abs=1e-5)
    own = cases[cases["structure"] == "LV"].groupby("fold")["dice"].mean()
    assert list(own) == pytest.approx(dice, abs=1e-5)

    # The ensemble is one registered model with references to its folds.
    metrics = json.loads((results / "report.json").read_text())
    assert (metrics["evaluated_on"], metrics["networks"]) == ("test", 2)
    assert metrics["tta"]["chosen_on"] == metrics["postprocess"]["chosen_on"] == "out-of-fold"
    version = client.get_model_version_by_alias("heartseg-camus", "champion")
    assert version.run_id == parent.info.run_id == version.tags[registry.TRAINING_TAG]
    assert version.tags[registry.DATA_TAG] == parent.data.tags["dvc.prepared_md5"]
    assert version.tags["heartseg.recipe"] == "camus/2folds"
    card = (results / "model_card.md").read_text()
    assert all(one.info.run_id in card for one in runs)
    assert "heartseg-camus version 1" in told

    # It uses the mean probabilities of the folds' networks.
    store, champion = f"sqlite:///{repository}/mlflow.db", "models:/heartseg-camus@champion"
    predict = pulled.fetch_package(store, champion)[0].load_with_probabilities()
    image = decode_image(frames["image"].iloc[0], frames["height"].iloc[0])[None]
    labels, probabilities = predict(image)
    assert np.array_equal(labels, pulled.pull(store, champion).predict(image))
    members = [mean_sigmoids(path, metrics) for path in sorted(folders[0].parent.glob("fold?"))]
    expected = np.mean([member(image) for member in members], axis=0)
    expected /= expected.sum(1, keepdims=True)  # one sigmoid per label
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)


def test_other_folds_have_other_networks(repository, tmp_path, monkeypatch):
    """Otherwise networks would be evaluated on patients that they were trained on."""
    shutil.copytree(repository / "data", tmp_path / "data")
    text = (repository / "params.yaml").read_text()
    monkeypatch.chdir(tmp_path)
    opened = []

    def stop(name, params, assigned, folder):
        opened.append((assigned, folder))
        raise InputError("far enough")

    monkeypatch.setattr(job, "open_job", stop)
    for seed in (0, 1, 0):
        content = yaml.safe_load(text)
        content["datasets"]["camus"]["split"]["seed"] = seed
        Path("params.yaml").write_text(yaml.safe_dump(content))
        with pytest.raises(InputError, match="far enough"):
            crossval.main(["camus", "--folds", "2", "--in-process"])

    (first, folder), (second, other), again = opened
    assert first != second
    assert folder != other
    assert again == (first, folder)


def mean_sigmoids(folder: Path, metrics: dict):
    """The sigmoids of a fold, at the size of images and network."""
    import torch

    from heartseg.models.trained import load_trained
    from heartseg.models.tta import views_of

    model, _, _ = load_trained(folder / "model")
    model.set_tta(views_of("camus", metrics["tta"]["chosen"]))

    def told(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model.logits(torch.from_numpy(images)).sigmoid().numpy()

    return told
