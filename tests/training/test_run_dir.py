"""Tests that exactly the folder of an interrupted run is found again."""

from __future__ import annotations

import pytest

from heartseg.errors import InputError
from heartseg.train import check_weights
from heartseg.training import run_dir
from heartseg.training.run_dir import clear_checkpoints, open_run_dir, read_state, update_state
from tests.examples import small_recipe


def folder_of(runs, recipe, digest="1" * 32, engine="ray"):
    with open_run_dir(runs, "camus", recipe, digest, engine) as folder:
        return folder


def test_the_same_training_finds_its_folder(tiny_recipe, tmp_path):
    first = folder_of(tmp_path, tiny_recipe)
    update_state(first, mlflow_run_id="abc")
    assert folder_of(tmp_path, tiny_recipe) == first
    assert read_state(first)["mlflow_run_id"] == "abc"


def test_recipe_data_engine_and_code_identify_a_training(params, tmp_path, monkeypatch):
    recipe = small_recipe(params)
    folders = {
        folder_of(tmp_path, recipe),
        folder_of(tmp_path, small_recipe(params, seed=1)),
        folder_of(tmp_path, recipe, digest="2" * 32),
        folder_of(tmp_path, recipe, engine="in-process"),
    }
    monkeypatch.setattr(run_dir, "code_digest", lambda: "mended")
    folders.add(folder_of(tmp_path, recipe))
    assert len(folders) == 5


def test_a_finished_training_starts_again(tiny_recipe, tmp_path):
    folder = folder_of(tmp_path, tiny_recipe)
    (folder / "journal.jsonl").touch()
    update_state(folder, finished=True)
    assert [path.name for path in folder_of(tmp_path, tiny_recipe).iterdir()] == ["run.json"]
    assert not read_state(folder).get("finished")


def test_two_processes_never_share_a_folder(tiny_recipe, tmp_path):
    with open_run_dir(tmp_path, "camus", tiny_recipe, "1" * 32, "ray") as folder:
        update_state(folder, finished=True)
        with pytest.raises(InputError, match="another process uses"):
            folder_of(tmp_path, tiny_recipe)
        assert read_state(folder)["finished"]


def test_initial_weights_identify_a_training(params, tmp_path):
    weights = tmp_path / "start.pth"
    model = small_recipe(params).model.model_dump() | {"weights": str(weights)}
    recipe = small_recipe(params, model=model)
    folders = []
    for content in ("a", "b", "a"):
        weights.write_text(content)
        folders.append(folder_of(tmp_path / "runs", recipe))
    assert folders[0] == folders[2] != folders[1]


def test_weights_that_dvc_does_not_track_are_rejected(params, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("weights/camus/start.pth", "start.pth"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        model = small_recipe(params).model.model_dump() | {"weights": name}
        recipe = small_recipe(params, model=model)
        check_weights(recipe, "camus")  # allowed outside the pipeline
        monkeypatch.setenv("DVC_STAGE", "train@camus")
        if name == "start.pth":
            with pytest.raises(InputError, match=r"start\.pth .*weights/camus/"):
                check_weights(recipe, "camus")
        else:
            check_weights(recipe, "camus")
        monkeypatch.delenv("DVC_STAGE")


def test_a_finished_training_keeps_its_last_checkpoint(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in ("0001-000000.aa.pt", "0002-000003.bb.pt", "0001-000000.cc.pt.damaged"):
        (tmp_path / "checkpoints" / name).touch()
    clear_checkpoints(tmp_path, keep=1)
    left = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert left == ["0002-000003.bb.pt"]
    for _ in range(2):  # nothing is there the second time
        clear_checkpoints(tmp_path, keep=0)
    assert list((tmp_path / "checkpoints").iterdir()) == []
