"""A run that was cut off is found again, and no other."""

from __future__ import annotations

import pytest

from heartseg.errors import InputError
from heartseg.training import run_dir
from heartseg.training.run_dir import open_run_dir, read_state, update_state
from tests.examples import small_recipe


def folder_of(runs, recipe, digest="1" * 32, engine="ray"):
    with open_run_dir(runs, "camus", recipe, digest, engine) as folder:
        return folder


def test_the_same_training_finds_its_folder(tiny_recipe, tmp_path):
    first = folder_of(tmp_path, tiny_recipe)
    update_state(first, mlflow_run_id="abc")
    assert folder_of(tmp_path, tiny_recipe) == first
    assert read_state(first) == {"mlflow_run_id": "abc"}


def test_other_recipe_data_engine_or_code_is_another_training(params, tmp_path, monkeypatch):
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


def test_a_finished_training_starts_anew(tiny_recipe, tmp_path):
    folder = folder_of(tmp_path, tiny_recipe)
    (folder / "journal.jsonl").touch()
    update_state(folder, finished=True)
    assert list(folder_of(tmp_path, tiny_recipe).iterdir()) == []


def test_two_processes_never_share_a_folder(tiny_recipe, tmp_path):
    with open_run_dir(tmp_path, "camus", tiny_recipe, "1" * 32, "ray") as folder:
        update_state(folder, finished=True)
        with pytest.raises(InputError, match="another process works on"):
            folder_of(tmp_path, tiny_recipe)
        assert read_state(folder) == {"finished": True}
