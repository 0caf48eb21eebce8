"""Which held-out patients count when two models are measured again; stacks of frames."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from heartseg.config.params import load_params
from heartseg.data.prepared import Sample, file_digest, write_prepared
from heartseg.errors import InputError
from heartseg.evaluation import held_out
from heartseg.evaluation.held_out import HeldOut, measure_again, package_predictor
from heartseg.tracking.ancestors import TrackedModel
from heartseg.tracking.client import connect
from heartseg.tracking.evaluations import EvaluatedModel
from tests.examples import ROOT
from tests.tracking.stores import _cold_store, _own_environment, new_run, store

pytestmark = pytest.mark.slow

__all__ = ["_cold_store", "_own_environment", "store"]

PREPARED = Path("data/prepared/camus.parquet")
SPLIT = {"a": "test", "b": "test", "c": "test", "d": "val", "e": "train"}


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository with five patients, and models with perfect predictions."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    mask = np.zeros((16, 16), np.uint8)
    mask[4:12, 4:12] = 1
    samples = [Sample(f"{p}_1", p, "4CH", "ED", 0, mask, mask, (1.0, 1.0)) for p in SPLIT]
    write_prepared(PREPARED, samples, SPLIT, {})

    def predict(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return image[0], np.eye(4, dtype=np.float32)[image[0]].transpose(2, 0, 1)

    monkeypatch.setattr(held_out, "load_predictor", lambda uri, model: predict)


def model(
    uri: str, cases: dict | None = None, *, md5: str = "f" * 32, **tags: str
) -> EvaluatedModel:
    """Create a model whose run has a list of cases."""
    client, run_id = connect(uri), new_run(uri)
    for name, value in {"dvc.prepared_md5": md5, **tags}.items():
        client.set_tag(run_id, name, value)
    if cases is not None:
        client.log_text(run_id, json.dumps(cases), "lineage/cases.json")
    return EvaluatedModel(
        name=f"model {run_id[:4]}",
        aliases=[],
        tracked=TrackedModel(client.get_run(run_id), None),
        model_uri="models:/x/1",
        dataset="camus",
        recipe={},
        metrics={"evaluated_on": "test"},
        cases=pd.DataFrame(),
        clinical=pd.DataFrame(),
    )


def measure(uri: str, *models: EvaluatedModel, key: str = "") -> HeldOut:
    def shown(name: str) -> str:
        return f"id-{hashlib.sha256((key + name).encode()).hexdigest()[:12]}"

    return measure_again(models, PREPARED, connect(uri), load_params(), shown)


def patients(found: HeldOut) -> set[str]:
    return set(found.cases[0]["patient"])


def test_whoever_validated_a_fold_was_trained_on_by_the_others(store: str) -> None:
    cases = {"train": {"a": []}, "val": {"b": []}, "test": {"c": []}}
    one, folds = model(store, cases), model(store, cases, **{"heartseg.crossval": "x-1"})

    assert patients(measure(store, one, one)) == {"b", "c"}
    found = measure(store, one, folds)
    assert patients(found) == {"c"}
    assert "2 patients left out" in found.about


def test_the_same_data_need_no_list(store: str) -> None:
    """Names that were hashed with another key are ignored in that case."""
    cases = {"train": {"id-0123456789ab": []}, "val": {}, "test": {}}
    one = model(store, cases, md5=file_digest(PREPARED))

    found = measure(store, one, one)
    assert patients(found) == {"a", "b", "c"}
    assert "is not known" not in found.about


def test_names_by_this_key_count_and_those_by_another_are_told(store: str) -> None:
    def hashed(key: str) -> dict:
        name = f"id-{hashlib.sha256(f'{key}a'.encode()).hexdigest()[:12]}"
        return {"train": {name: []}, "val": {}, "test": {}}

    mine, hers = model(store, hashed("mine")), model(store, hashed("hers"))

    assert patients(measure(store, mine, mine, key="mine")) == {"b", "c"}
    found = measure(store, mine, hers, key="mine")
    assert f"the training patients of {hers.title} are not known" in found.about
    assert f"which patients {mine.title}" not in found.about


def package(channels: int) -> SimpleNamespace:
    def run(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return batch.sum(axis=1), batch

    recipe = {"model": {"in_channels": channels}}
    return SimpleNamespace(
        name="it", metadata={"recipe": recipe}, load_with_probabilities=lambda: run
    )


def test_a_single_frame_is_no_sequence() -> None:
    stack = np.arange(1, 5, dtype=np.uint8)[:, None, None] * np.ones((4, 2, 2), np.uint8)

    assert (package_predictor(package(4))(stack)[0] == 10).all()
    assert (package_predictor(package(1))(stack)[0] == 1).all()  # the first is the one segmented
    assert (package_predictor(package(3))(stack)[0] == 3).all()
    with pytest.raises(InputError, match=r"sequences of 4 frames .* have 1"):
        package_predictor(package(4))(stack[:1])
