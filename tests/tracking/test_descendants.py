"""Search for the runs and models of some data, in a store of a few runs."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from heartseg.data.prepared import Sample, write_prepared
from heartseg.errors import InputError
from heartseg.lineage import main as lineage
from heartseg.tracking import ancestors
from heartseg.tracking.ancestors import find_model
from heartseg.tracking.client import connect, open_run
from heartseg.tracking.descendants import filter_by_data, filter_by_patient, find_descendants
from tests.examples import ROOT
from tests.tracking.stores import forget_run

OLD, NEW, LOST = "a" * 32, "b" * 32, "c" * 32
CASES = {"train": {"p1": ["p1_ED", "p1_ES"]}, "val": {"p2": ["p2_ED"]}, "test": {}}


class Store:
    def __init__(self, uri: str):
        self.client = connect(uri)
        self.ids: dict[str, str] = {}

    def run(self, name: str, prepared: str, *, parent: str | None = None, **tags: str) -> None:
        parents = {} if parent is None else {"mlflow.parentRunId": self.ids[parent]}
        self.ids[name] = open_run(
            self.client,
            experiment="heartseg-camus",
            name=name,
            params={},
            texts={},
            dataset="camus",
            data_source="data/CAMUS",
            data_digest=prepared,
            tags={
                "dvc.prepared_md5": prepared,
                "dvc.source": "data/CAMUS",
                "dvc.source_md5": prepared[::-1] + ".dir",
                "heartseg.dataset": "camus",
                **{key.replace("__", "."): value for key, value in tags.items()},
                **parents,
            },
        )

    def users(self, concerns) -> dict[str, dict]:
        groups = find_descendants(self.client, Path.cwd(), concerns)
        return {run["name"]: group for group in groups for run in group["runs"]}


@pytest.fixture
def filled(store, tmp_path, monkeypatch) -> Store:
    """A sweep and its trial on old data, a training on new data, one that started from weights."""
    monkeypatch.chdir(tmp_path)
    made = Store(store)
    made.run("sweep", OLD, heartseg__sweep="s")
    made.client.log_text(made.ids["sweep"], json.dumps(CASES), "lineage/cases.json")
    made.run("trial", OLD, parent="sweep", heartseg__sweep="s", heartseg__trial="3")
    made.client.set_tag(made.ids["trial"], "eval.weights_md5", "w1")
    made.run("lost", LOST)
    made.run("tuned", NEW, heartseg__started_from="w0 w1", eval__weights_md5="w2")
    made.run("tuned twice", NEW, heartseg__started_from="w2")
    made.run("other", NEW)
    for name in ("lost", "tuned", "tuned twice", "other"):
        cases = {} if name == "lost" else {"train": {"p9": ["p9_ED"]}}
        if cases:
            made.client.log_text(made.ids[name], json.dumps(cases), "lineage/cases.json")
    made.client.delete_run(made.ids["trial"])
    return made


def test_a_patient_is_found_with_split_and_in_what_started_from_its_models(filled):
    found = filled.users(filter_by_patient(filled.client, Path.cwd(), "p2", str))

    assert set(found) == {"sweep", "trial", "tuned", "tuned twice", "lost"}
    assert (found["sweep"]["split"], found["sweep"]["cases"]) == ("val", ["p2_ED"])
    assert found["trial"] is found["sweep"]  # the sweep keeps the list; deleted runs count too
    assert [run["deleted"] for run in found["trial"]["runs"]] == [False, True]
    assert found["lost"]["split"] is None  # nobody knows
    assert found["lost"]["prepared_in_cache"] is False
    assert found["tuned"]["indirect"]
    origins = {run["name"]: run["started_from"] for run in found["tuned"]["runs"]}
    assert origins == {"tuned": filled.ids["trial"], "tuned twice": filled.ids["tuned"]}


def test_a_version_whose_run_is_gone_is_unknown_and_not_nobody(
    store, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    for arguments in (["--patient", "p2"], ["data/CAMUS"]):
        lineage(arguments)
        assert "no run in this store" in capsys.readouterr().out
    made = Store(store)
    made.run("gone", OLD)
    run_id = made.ids["gone"]
    made.client.create_registered_model("heartseg-camus")
    made.client.create_model_version("heartseg-camus", (tmp_path / "m").as_uri(), run_id)
    made.client.delete_run(run_id)
    lineage(["data/CAMUS"])
    assert "unknown" not in capsys.readouterr().out  # a deleted run still tells
    forget_run(store, run_id)
    for arguments in (["--patient", "p2"], ["data/CAMUS"], [OLD]):
        lineage(arguments)
        told = capsys.readouterr().out
        assert "no run in this store" not in told
        assert "unknown for 1 model version(s)" in told
        assert "models:/heartseg-camus/1" in told
        lineage([*arguments, "--json"])
        (group,) = json.loads(capsys.readouterr().out)
        assert (group["unknown"], group["runs"]) == (True, [])
        assert [model["run_id"] for model in group["models"]] == [run_id]


def by_key(key: str):
    """Return the patients' names hashed with a key."""
    return lambda name: f"id-{hashlib.sha256((key + name).encode()).hexdigest()[:12]}"


def keep_list(store: Store, run: str, shown) -> None:
    cases = {
        split: {shown(name): [shown(case) for case in own] for name, own in patients.items()}
        for split, patients in CASES.items()
    }
    store.client.log_text(store.ids[run], json.dumps(cases), "lineage/cases.json")


def test_lists_by_several_keys_are_all_read(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = Store(store)
    for name, key in (("hers", "her"), ("mine", "my"), ("his", "his")):
        made.run(name, OLD)
        keep_list(made, name, by_key(key))
    for asked in ("p2", by_key("my")("p2"), by_key("his")("p2")):
        found = made.users(filter_by_patient(made.client, Path.cwd(), asked, by_key("my")))
        assert set(found) == {"hers", "mine", "his"}  # the same data: the same patients
        assert found["hers"]["split"] == "val"


def test_a_patient_by_another_key_is_looked_up_in_the_data(store, tmp_path, monkeypatch, capsys):
    """Without lists the patients are unknown, which is reported differently from none."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    made = Store(store)
    made.run("hers", OLD, eval__weights_md5="w1")
    keep_list(made, "hers", by_key("her"))
    made.run("tuned", NEW, heartseg__started_from="w1")
    made.client.log_text(
        made.ids["tuned"], json.dumps({"train": {"p9": ["p9_ED"]}}), "lineage/cases.json"
    )

    (group,) = find_descendants(
        made.client, Path.cwd(), filter_by_patient(made.client, Path.cwd(), "p2", by_key("my"))
    )
    assert (group["split"], group["hashed"]) == (None, True)
    lineage(["--patient", "p2"])
    told = capsys.readouterr().out
    assert "unknown for 1 run(s)" in told
    assert OLD in told
    assert "no run in this store" not in told

    image = np.zeros((16, 16), np.uint8)
    samples = [
        Sample(case, patient, "4CH", "ED", 0, image, image, (1.0, 1.0))
        for patients in CASES.values()
        for patient, cases in patients.items()
        for case in cases
    ]
    cache = tmp_path / "cache"
    write_prepared(cache / OLD[:2] / OLD[2:], samples, {"p1": "train", "p2": "val"}, {})
    monkeypatch.setattr(ancestors, "find_data", lambda root, md5: cache if md5 == OLD else None)
    found = made.users(filter_by_patient(made.client, Path.cwd(), "p2", by_key("my")))
    assert (found["hers"]["split"], found["hers"]["cases"]) == ("val", ["p2_ED"])
    assert found["tuned"]["indirect"]
    assert made.users(filter_by_patient(made.client, Path.cwd(), "p3", by_key("my"))) == {}


def test_paths_and_hashes(filled):
    everything = set(filled.ids)
    for reference, direct in {
        "data/CAMUS/database_nifti/p1": everything,
        "data/prepared/camus.parquet": everything,
        OLD[:8]: {"sweep", "trial"},
        f"{LOST[::-1]}.dir": {"lost"},
        "data": set(),
        "data/CAMUS2": set(),
        "aaaaa": set(),
    }.items():
        found = filled.users(filter_by_data(Path.cwd(), reference))
        picked = {name for name, group in found.items() if "indirect" not in group}
        assert picked == direct, reference


def test_what_heartseg_did_not_train(store):
    client = connect(store)
    foreign = client.create_run(client.create_experiment("x")).info.run_id
    with pytest.raises(InputError, match="was not trained by heartseg"):
        find_model(client, f"runs:/{foreign}")
    with pytest.raises(InputError, match="Registered there: nothing yet"):
        find_model(client, "models:/nothing/1")
    with pytest.raises(InputError, match="nothing at runs:/12"):
        find_model(client, "runs:/12")
