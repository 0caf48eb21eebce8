"""`heartseg lineage` and `heartseg reproduce` of one tiny model, in a copy of the repository."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from heartseg.config.params import load_params
from heartseg.data.prepared import read_prepared
from heartseg.data.privacy import shown_name
from heartseg.errors import InputError
from heartseg.lineage import main as lineage
from heartseg.reproduce import main as reproduce
from heartseg.tracking.client import connect
from tests.clones import TINY, commit, copy_repository, environment, run, set_params
from tests.examples import ROOT, small_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MODEL = "models:/heartseg-camus@champion"
PARQUET = Path("data/prepared/camus.parquet")


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """With one model, trained with uncommitted changes; only DVC's cache still has the data."""
    place = copy_repository(tmp_path_factory.mktemp("clone"))
    recipe = small_recipe(load_params(ROOT / "params.yaml"), epochs=2)
    set_params(place, TINY | {"recipes.camus": recipe.model_dump(mode="json")})
    set_params(place, {"evaluate.bootstrap_samples": 100, "tracking.system_metrics": False})
    commit(place, "tiny settings")
    run(["dvc", "repro", "--quiet", "prepare@camus"], place)
    set_params(place, {"recipes.camus.seed": 7})
    (place / "heartseg/new_module.py").write_text("NEW = True\n")
    for stage in ("train camus --in-process", "evaluate camus", "register camus"):
        run([sys.executable, "-m", "heartseg", *stage.split()], place)
    run(["git", "checkout", "--quiet", "params.yaml"], place)
    (place / "heartseg/new_module.py").unlink()
    frames = read_prepared(place / PARQUET)
    frames[["split", "patient", "case_id"]].to_csv(place / "frames.csv", index=False)
    (place / PARQUET).unlink()
    return place


@pytest.fixture
def inside(clone, monkeypatch) -> Path:
    """The commands run in the tests' own process, which has imported everything already."""
    monkeypatch.chdir(clone)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return clone


def told_by_lineage(capsys, *arguments: str) -> str:
    lineage([*arguments])
    return capsys.readouterr().out


def test_lineage_is_whole_and_leads_both_ways(inside, capsys):
    chain = json.loads(told_by_lineage(capsys, MODEL, "--json"))
    lock = yaml.safe_load(Path("dvc.lock").read_text())["stages"]["prepare@camus"]
    (prepared,) = [out["md5"] for out in lock["outs"]]
    (source,) = [dep["md5"] for dep in lock["deps"] if dep["path"] == "data/phantoms/camus"]
    assert chain["model"]["aliases"] == ["champion"]
    assert chain["code"]["commit"] == run(["git", "rev-parse", "HEAD"], inside).strip()
    assert (chain["code"]["here"], chain["code"]["dirty"]) == (True, "true")
    assert chain["recipe"]["values"]["seed"] == 7
    data = chain["data"]
    assert (data["source_md5"], data["prepared_md5"]) == (source, prepared)
    assert (data["source_in_cache"], data["prepared_in_cache"]) == (True, True)
    assert sum(data["patients"].values()) == TINY["phantoms.camus.patients"]
    assert chain["machine"]["engine"] == "in-process"
    assert int(chain["machine"]["threads"]) > 0
    assert None not in chain["environment"].values()
    tree = told_by_lineage(capsys, MODEL)
    assert all(md5 in tree for md5 in (source, prepared, chain["code"]["patch_md5"]))

    frames = pd.read_csv("frames.csv")
    patient = frames["patient"][0]
    for asked in (["data/phantoms/camus"], [source[:8]], ["--patient", patient]):
        (group,) = json.loads(told_by_lineage(capsys, *asked, "--json"))
        (one,) = group["runs"]
        assert one["id"] == chain["run"]["id"]
        named = {"name": "heartseg-camus", "version": "1", "aliases": ["champion"]}
        assert one["models"] == [named]
    assert group["split"] == frames["split"][0]
    shown = shown_name(load_params().privacy, patient)
    own = frames["case_id"][frames["patient"] == patient]
    assert group["cases"] == [case.replace(patient, shown) for case in own]
    assert "no run in this store" in told_by_lineage(capsys, "--patient", "nobody")


def test_the_same_machine_makes_the_same_bits(clone):
    before = sorted(path.name for path in clone.iterdir())
    done = subprocess.run(
        [sys.executable, "-m", "heartseg.reproduce", MODEL, "--strict", "--json", "--yes"],
        cwd=clone,
        env=environment(clone),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    verdict = json.loads(done.stdout)
    assert (verdict["weights_identical"], verdict["metrics_identical"]) == (True, True)
    assert verdict["metrics"] == []
    assert "from DVC" in done.stderr
    assert not any(Path(word).exists() for word in done.stderr.split() if "reproduce-" in word)
    assert sorted(path.name for path in clone.iterdir()) == before
    assert run(["git", "worktree", "list"], clone).count("\n") == 1
    client = connect(f"sqlite:///{clone}/mlflow.db")
    assert len(client.search_model_versions()) == 1
    assert len(client.search_runs([e.experiment_id for e in client.search_experiments()])) == 1


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        ({"git.commit": "0" * 40}, "this repository has no commit 0000"),
        (
            {
                "dvc.prepared_md5": "0" * 32,
                "dvc.source_md5": "1" * 32 + ".dir",
                "dvc.source": "data/gone",
            },
            "data/gone does not exist either. Push it",
        ),
        ({"version.python": "3.1.0"}, "python 3.1.0 then, "),
    ],
)
def test_what_is_missing_is_named(inside, capsys, faults, reason):
    client = connect(f"sqlite:///{inside}/mlflow.db")
    (version,) = client.search_model_versions()
    tags = client.get_run(version.run_id).data.tags
    for tag, value in faults.items():
        client.set_tag(version.run_id, tag, value)
    try:
        with pytest.raises(InputError, match=re.escape(reason)):
            reproduce([MODEL, "--strict", "--yes"])
        if "dvc.source" in faults:
            assert told_by_lineage(capsys, MODEL).count("not in DVC's cache") == 2
    finally:
        for tag in faults:
            if tag in tags:
                client.set_tag(version.run_id, tag, tags[tag])
            else:
                client.delete_tag(version.run_id, tag)
    assert run(["git", "worktree", "list"], inside).count("\n") == 1


def test_a_model_that_nobody_registered(inside):
    with pytest.raises(InputError, match="no alias nobody"):
        reproduce(["models:/heartseg-camus@nobody"])
