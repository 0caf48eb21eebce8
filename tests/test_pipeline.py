"""The tutorial and `dvc repro`, in a copy of the repository with tiny settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from heartseg.data.prepared import read_metadata, read_prepared
from heartseg.tracking.artifacts import read_facts
from heartseg.tracking.client import connect
from tests.clones import TINY, commit, copy_repository, run, set_params
from tests.examples import ROOT
from tests.pages import command_lines, written_files
from tests.tracking.stores import assert_can_be_read

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """After `dvc repro`."""
    place = copy_repository(tmp_path_factory.mktemp("clone"))
    set_params(place, TINY)
    commit(place, "tiny settings")
    run(["dvc", "repro"], place)
    commit(place, "results")
    return place


def stages_out_of_date(place: Path) -> set[str]:
    return set(json.loads(run(["dvc", "status", "--json"], place)))


def test_raw_data_become_registered_models(clone):
    client = connect(f"sqlite:///{clone}/mlflow.db")
    for dataset in ("camus", "mmode"):
        registered = json.loads((clone / f"results/{dataset}/registered.json").read_text())
        metrics = json.loads((clone / f"results/{dataset}/report.json").read_text())
        version = client.get_model_version_by_alias(f"heartseg-{dataset}", "champion")
        assert (str(version.version), version.run_id) == (
            registered["version"],
            registered["run_id"],
        )
        run_of_it = client.get_run(registered["run_id"])
        lock = yaml.safe_load((clone / "dvc.lock").read_text())["stages"]
        (prepared,) = lock[f"prepare@{dataset}"]["outs"]
        tags = run_of_it.data.tags
        assert run_of_it.info.status == "FINISHED"
        assert tags["dvc.prepared_md5"] == prepared["md5"] == metrics["data_digest"]
        assert read_facts(client, run_of_it)["dvc.prepared_in_lock"] == "true"
        assert tags["git.commit"] == run(["git", "rev-parse", "HEAD~1"], clone).strip()
        assert tags["git.dirty"] == "false"
        assert run_of_it.inputs.dataset_inputs[0].dataset.digest == prepared["md5"]
        assert_can_be_read(run_of_it)
        assert {"loss/train", "loss/val", "dice/LV", "dice/mean", "learning_rate",
                "images_per_second"} <= run_of_it.data.metrics.keys()  # fmt: skip
        headline = json.loads((clone / f"results/{dataset}/metrics.json").read_text())
        assert {f"test/{name}" for name in headline} <= run_of_it.data.metrics.keys()
        history = client.get_metric_history(registered["run_id"], "dice/mean")
        assert [point.step for point in history] == [1, 2]
        folders = {file.path for file in client.list_artifacts(registered["run_id"])}
        assert {"recipe.yaml", "overlays", "evaluation", "model_card.md"} <= folders
    frames = read_prepared(clone / "data/prepared/camus.parquet")
    assert frames.groupby("patient")["split"].nunique().max() == 1


def test_an_unchanged_pipeline_does_nothing(clone):
    assert "Data and pipelines are up to date." in run(["dvc", "repro"], clone)


def test_one_changed_value_concerns_its_own_stages_only(clone):
    before = (clone / "params.yaml").read_text()
    set_params(clone, {"register.mmode.metric": "LVIDd_MAE"})
    try:
        assert stages_out_of_date(clone) == {"register@mmode"}
    finally:
        (clone / "params.yaml").write_text(before)


def test_weights_to_start_from_concern_the_training(clone):
    start = clone / "weights/mmode/start.pth"
    start.touch()
    try:
        assert "train@mmode" in stages_out_of_date(clone)
        assert "train@camus" not in stages_out_of_date(clone)
    finally:
        start.unlink()


def test_data_travel_through_a_remote(clone, tmp_path):
    """Pushed from one clone, pulled into another, which then has nothing left to do."""
    run(["dvc", "remote", "add", "--default", "storage", str(tmp_path / "storage")], clone)
    commit(clone, "remote")
    run(["dvc", "push"], clone)
    colleague = tmp_path / "colleague"
    run(["git", "clone", "--quiet", str(clone), str(colleague)], tmp_path)
    run(["dvc", "pull"], colleague)
    name = "data/prepared/camus.parquet"
    assert (colleague / name).read_bytes() == (clone / name).read_bytes()
    assert stages_out_of_date(colleague) == set()


def test_a_release_of_ones_own_is_one_changed_line(clone, tmp_path):
    """`dvc add`, set the source, `dvc repro`: the release's hash stands in the lock."""
    place = tmp_path / "own"
    run(["git", "clone", "--quiet", str(clone), str(place)], tmp_path)
    run(["cp", "-r", str(clone / "data/phantoms/camus"), str(place / "data/CAMUS_public")], place)
    run(["dvc", "add", "data/CAMUS_public"], place)
    set_params(place, {"datasets.camus.source": "data/CAMUS_public"})
    run(["dvc", "repro", "prepare@camus"], place)
    added = yaml.safe_load((place / "data/CAMUS_public.dvc").read_text())["outs"][0]["md5"]
    stage = yaml.safe_load((place / "dvc.lock").read_text())["stages"]["prepare@camus"]
    hashes = {entry["path"]: entry["md5"] for entry in stage["deps"]}
    assert hashes["data/CAMUS_public"] == added
    assert read_metadata(place / "data/prepared/camus.parquet")["source"] == "data/CAMUS_public"


def test_the_tutorial(clone):
    """All its commands, in order; those of other pages are checked by tests/test_docs.py."""
    page = ROOT / "docs/tutorial.md"
    for name, content in written_files(page).items():
        (clone / name).write_text(content)
    for command in command_lines(page):
        if command.startswith("source "):  # the tests' environment is active already
            continue
        printed = run(command.replace("make ", "make --dry-run ", 1), clone)
        if command.startswith(("dvc metrics", "dvc exp show")):
            assert max(map(len, printed.splitlines()), default=0) <= 120, printed
    versions = connect(f"sqlite:///{clone}/mlflow.db").search_model_versions(
        "name = 'heartseg-camus'"
    )
    assert {int(version.version) for version in versions} == {1, 2, 3}
    assert list((clone / "predictions").rglob("*_seg.nii.gz"))
    assert list((clone / "predictions").rglob("*_overlay.png"))
    assert {"compare.html", "test.csv"} <= {path.name for path in clone.iterdir()}
    assert (clone / "champion/model.onnx").is_file()
