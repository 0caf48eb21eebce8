"""A repository with mlflow.db and mlartifacts that is moved or copied."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking._tracking_service import utils

from heartseg.errors import InputError
from heartseg.tracking import registry
from heartseg.tracking.client import connect, portable_uri
from heartseg.tracking.moved_store import former_folders
from heartseg.tracking.server_checks import check_tracking
from tests.tracking.stores import new_run

NAME = "heartseg-camus"


def register(repository: Path, text: str) -> str:
    """Add a run with an artifact, and a model of one file, as a new version."""
    uri = f"sqlite:///{repository}/mlflow.db"
    client = registry.use_store(uri)
    run_id = new_run(uri)
    client.log_text(run_id, text, "note.txt")
    experiment = client.get_run(run_id).info.experiment_id
    model = client.create_logged_model(experiment, name="unet", source_run_id=run_id)
    file = repository / "weights.txt"
    file.write_text(text)
    client.log_model_artifact(model.model_id, str(file))
    file.unlink()
    client.finalize_logged_model(model.model_id, "READY")
    return registry.register_version(client, NAME, run_id, f"models:/{model.model_id}", {})


def contents(repository: Path, version: str) -> tuple[str, str]:
    """Read the version's model and its run's artifact through the registry."""
    uri = f"sqlite:///{repository}/mlflow.db"
    utils._artifact_repos_cache.clear()  # by the run's id: it would give the original's
    client = registry.use_store(uri)
    run_id = client.get_model_version(NAME, version).run_id
    folder = mlflow.artifacts.download_artifacts(f"models:/{NAME}/{version}", tracking_uri=uri)
    note = client.download_artifacts(run_id, "note.txt")
    return (Path(folder) / "weights.txt").read_text(), Path(note).read_text()


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.md5(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def repository(tmp_path: Path, _cold_store: Path) -> Path:
    """A repository with one registered model, whose path needs quoting in a URI."""
    place = tmp_path / "first place"
    place.mkdir()
    shutil.copy(_cold_store, place / "mlflow.db")
    register(place, "one")
    return place


def test_moved(repository, tmp_path, capsys):
    place = tmp_path / "second"
    shutil.move(repository, place)

    assert contents(place, "1") == ("one", "one")
    said = capsys.readouterr().err
    assert str(place) in said
    assert str(repository) in said
    assert register(place, "two") == "2"
    assert contents(place, "2") == ("two", "two")
    assert capsys.readouterr().err == ""  # once
    assert not repository.exists()  # not made anew
    with closing(sqlite3.connect(place / "mlflow.db")) as database:
        assert not [line for line in database.iterdump() if "first%20place" in line]


def test_copied(repository, tmp_path):
    place = tmp_path / "copy"
    shutil.copytree(repository, place)
    before = digests(repository)

    assert register(place, "two") == "2"

    assert contents(place, "1") == ("one", "one")
    assert contents(place, "2") == ("two", "two")
    assert digests(repository) == before
    shutil.rmtree(place)
    assert contents(repository, "1") == ("one", "one")


def test_a_database_without_its_artifacts_is_refused(repository, tmp_path):
    place = tmp_path / "copy"
    place.mkdir()
    shutil.copy(repository / "mlflow.db", place)
    before = digests(place)

    with pytest.raises(InputError, match=f"{repository}/mlartifacts.*{place}/mlartifacts"):
        connect(f"sqlite:///{place}/mlflow.db")

    assert digests(place) == before
    shutil.copytree(repository / "mlartifacts", place / "mlartifacts")
    assert contents(place, "1") == ("one", "one")


def test_doctor_sees_it(repository, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    place = tmp_path / "second"
    shutil.move(repository, place)
    (found,) = [check for check in check_tracking(place, []) if check.name == "artifact places"]
    assert found.status == "warn"
    assert str(repository) in found.seen
    assert former_folders(place / "mlflow.db") == []
    assert not [check for check in check_tracking(place, []) if check.name == "artifact places"]


def test_places_that_are_not_ours_stay(repository, tmp_path):
    """An experiment with another folder of artifacts, and a link to the same folder."""
    uri = f"sqlite:///{repository}/mlflow.db"
    connect(uri).create_experiment("own", (tmp_path / "elsewhere").as_uri())
    link = tmp_path / "link"
    link.symlink_to(repository)
    assert former_folders(link / "mlflow.db") == []
    place = tmp_path / "second"
    shutil.move(repository, place)
    client = connect(f"sqlite:///{place}/mlflow.db")
    assert client.get_experiment_by_name("own").artifact_location.endswith("/elsewhere")
    assert f"{place}/" in client.get_experiment_by_name(NAME).artifact_location


def test_a_run_folder_belongs_to_the_store_that_moved_with_it(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert portable_uri(uri, tmp_path) == "sqlite:///mlflow.db"
    assert portable_uri("sqlite:////srv/mlflow.db", tmp_path) == "sqlite:////srv/mlflow.db"
    assert json.dumps(portable_uri("http://a:b/c@h:1", tmp_path)) == '"http://***@h:1"'
