"""The source project's way: half sequences as channels, from a release to a registered model."""

from __future__ import annotations

import json
import os
from pathlib import Path

import mlflow
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from heartseg import evaluate, predict, prepare, register, train
from heartseg.config.data import CamusPhantoms, Split
from heartseg.config.params import Params, load_params
from heartseg.config.recipe import DeepLabV3Config
from heartseg.data.phantoms.camus import write_camus
from heartseg.data.prepared import read_metadata, read_prepared
from heartseg.data.resident import Resident
from heartseg.data.splits import split_patients
from heartseg.errors import InputError
from heartseg.models import build_network
from heartseg.models.outputs import output_channels
from heartseg.training.loop import fit
from heartseg.training.losses import build_loss
from tests.clones import set_params
from tests.examples import ROOT, disks
from tests.tracking.stores import _cold_store, _own_environment, store

__all__ = ["_cold_store", "_own_environment", "store"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning"),
]


def test_the_recipe_states_the_source_projects_settings(params: Params) -> None:
    recipe = params.recipe("camus-source")
    assert isinstance(recipe.model, DeepLabV3Config)
    assert recipe.model.backbone == "resnet50"
    assert (recipe.model.in_channels, recipe.input_size) == (20, 256)
    assert (recipe.batch_size, recipe.eval_batch_size) == (12, 4)
    assert (recipe.loss, output_channels(recipe)) == ("one_vs_rest_bce", 4)
    network = build_network(recipe.model, output_channels(recipe))
    logits = network(torch.randn(2, 20, 64, 64))
    assert logits.shape == (2, 4, 64, 64)
    build_loss(recipe)(logits, torch.randint(0, 4, (2, 64, 64))).backward()
    first = network.get_submodule("backbone.conv1").weight
    assert first.grad is not None
    assert (first.grad.flatten(2).abs().sum((0, 2)) > 0).all()  # each frame counts


@pytest.fixture
def place(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with four phantom patients, three of them with half sequences, whose recipe
    camus-source has a small network and images."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    set_params(
        tmp_path,
        {
            "pipeline.camus": "camus-source",
            "datasets.camus.frames": 20,
            "datasets.camus.split.method": "random",
            "datasets.camus.split.test_fraction": 0,
            "datasets.camus.split.val_fraction": 0.2,
            "recipes.camus-source.model": {
                "name": "unet", "in_channels": 20, "channels": [8, 16], "residual_units": 1,
                "dropout": 0.0,
            },
            "recipes.camus-source.input_size": 48,
            "recipes.camus-source.batch_size": 4,
            "recipes.camus-source.epochs": 2,
            "recipes.camus-source.channels_last": False,
            "evaluate.postprocess": "none",
            "evaluate.tta": "none",
            "tracking.system_metrics": False,
            "register.camus.floor": {},
        },
    )  # fmt: skip
    source = tmp_path / "data/phantoms/camus"
    source.mkdir(parents=True)
    write_camus(source, CamusPhantoms(patients=4, half_sequences=3, seed=1), os.cpu_count() or 1)
    return tmp_path


@pytest.mark.slow
def test_from_half_sequences_to_a_registered_model(place: Path, store: str) -> None:
    prepare.main(["camus"])
    table = read_prepared("data/prepared/camus.parquet")
    assert table.groupby("split")["patient"].nunique().to_dict() == {"train": 2, "val": 1}
    notes = read_metadata("data/prepared/camus.parquet")["notes"]
    assert any("3 of 4 patients have half sequences" in note for note in notes)

    train.main(["camus-source", "--in-process"])
    evaluate.main(["camus-source"])
    metrics = json.loads((place / "results/camus/report.json").read_text())
    assert (metrics["evaluated_on"], metrics["selected_on_it"]) == ("val", False)
    assert (metrics["n_patients"], metrics["n_cases"]) == (1, 4)
    assert (place / "results/camus/figures/targets_median.png").exists()
    cases = pd.read_csv(place / "results/camus/cases.csv")

    register.main(["camus-source"])
    model = "models:/heartseg-camus@champion"
    (info,) = mlflow.models.get_model_info(model).signature.inputs.inputs
    assert info.shape == (-1, 20, -1, -1)

    # What the package makes of the very files is what the evaluation saw.
    patient = str(cases["patient"].iloc[0])
    folder = place / "data/phantoms/camus/database_nifti" / patient
    stem = f"{patient}_2CH_half_sequence"
    predict.main([model, str(folder / f"{stem}.nii.gz"), "--out", "out"])
    labels = np.asanyarray(nib.load(f"out/{stem}_seg.nii.gz").dataobj)
    assert labels.shape[2] == 2
    curves = pd.read_csv(f"out/{stem}_curves.csv")
    for phase, dice in zip(("ED", "ES"), curves["dice_LV"], strict=True):
        of_case = cases[cases["case_id"] == f"{patient}_2CH_{phase}"].set_index("structure")
        assert dice == pytest.approx(of_case.loc["LV", "dice"], abs=1e-3)


def test_single_frames_are_no_sequence(params: Params) -> None:
    images, masks = (torch.from_numpy(array) for array in disks(12))
    frames = Resident(images, masks, [str(number) for number in range(12)])
    with pytest.raises(InputError, match=r"1 frame\(s\).* 20 input channel"):
        fit(params.recipe("camus-source"), frames, frames, report=lambda epoch: None)


def test_the_documented_split_is_80_20_by_patient() -> None:
    """params.yaml's own line for the command, on the 500 patients of the full release."""
    text = (ROOT / "params.yaml").read_text().replace("\n  #", " ")
    settings = {
        key.removeprefix("datasets.camus.split."): yaml.safe_load(value)
        for key, value in (word.split("=") for word in text.split() if "camus.split." in word)
    }
    split = load_params(ROOT / "params.yaml").datasets.camus.split
    split = Split.model_validate(split.model_dump() | settings)
    of = split_patients([f"patient{n:04d}" for n in range(1, 501)], split, {"x": "train"})
    sizes = {name: 4 * list(of.values()).count(name) for name in ("train", "val", "test")}
    assert sizes == {"train": 1600, "val": 400, "test": 0}  # images: two views, two phases
