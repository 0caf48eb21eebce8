"""Doctor's checks of the tracking store, with each fault that a test can cause."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from heartseg.tracking.client import connect, find_experiment
from heartseg.tracking.server_checks import check_tracking
from tests.tracking.stores import free_port

pytestmark = pytest.mark.slow

NAME = "heartseg-camus"
HERE = version("mlflow")


@contextmanager
def pretender(release: str, ahead: float = 0.0) -> Iterator[str]:
    """Run a fake server that reports a version, or without one demands authentication."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told = self.path == "/version" and bool(release)
            text = release if told else "You are not authenticated."  # MLflow's words
            self.send_response_only(200 if told else 401)
            self.send_header("Date", formatdate(time.time() + ahead, usegmt=True))
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def look(monkeypatch: pytest.MonkeyPatch, root: Path, uri: str | None) -> dict[str, str]:
    """Return the status of each check by name, and assert that every fault has a remedy."""
    if uri is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    checks = check_tracking(root, [NAME])
    assert all(check.fix for check in checks if check.status != "ok")
    assert not any("hidden" in check.seen + check.where for check in checks)
    return {check.name: check.status for check in checks}


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/mlruns", "databricks", "ftp://host"])
def test_what_names_no_store(monkeypatch, tmp_path, uri):
    assert look(monkeypatch, tmp_path, uri) == {"tracking URI": "fail"}


def test_nobody_answers(monkeypatch, tmp_path):
    found = look(monkeypatch, tmp_path, f"http://anna:hidden@127.0.0.1:{free_port()}")
    assert found == {"tracking URI": "ok", "tracking server": "fail"}


@pytest.mark.parametrize(
    ("release", "ahead", "wanted"),
    [
        ("1.30.0", 0, {"tracking server": "fail", "clock": "ok"}),
        ("<html>", 0, {"tracking server": "fail", "clock": "ok"}),
        ("3.0.0", 0, {"tracking server": "warn", "clock": "ok", "tracking user": "fail"}),
        ("", 0, {"clock": "ok", "tracking user": "fail"}),
        (HERE, 60, {"clock": "fail", "tracking server": "ok", "tracking user": "fail"}),
        (HERE, -8, {"clock": "warn", "tracking server": "ok", "tracking user": "fail"}),
    ],
)
def test_other_version_clock_and_unknown_user(monkeypatch, tmp_path, release, ahead, wanted):
    with pretender(release, ahead=ahead) as uri:
        found = look(monkeypatch, tmp_path, uri.replace("://", "://anna:hidden@"))
    assert found == {"tracking URI": "ok"} | wanted


def test_a_file_with_the_password_that_others_may_read(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow/credentials").write_text("[mlflow]\nmlflow_tracking_password = hidden\n")
    (tmp_path / ".mlflow/credentials").chmod(0o644)
    with pretender(HERE) as uri:
        found = look(monkeypatch, tmp_path, uri)
    assert found == {"tracking URI": "ok", "tracking user": "fail"}


def test_a_store_that_does_not_exist_yet_is_not_made(monkeypatch, tmp_path):
    assert look(monkeypatch, tmp_path, None) == {"tracking URI": "ok", "tracking store": "ok"}
    assert list(tmp_path.iterdir()) == []


def test_a_store_of_another_schema(monkeypatch, tmp_path, store):
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    assert look(monkeypatch, tmp_path, store) == {"tracking URI": "ok", "tracking schema": "fail"}


def test_a_relative_path_is_told(monkeypatch, tmp_path, store):
    found = look(monkeypatch, tmp_path, "sqlite:///mlflow.db")
    assert found["tracking URI"] == "warn"
    assert found["tracking store"] == "ok"


def test_round_trip_leaves_no_run_and_no_file(monkeypatch, tmp_path, store):
    client = connect(store)
    experiment = find_experiment(client, NAME)
    client.create_registered_model(NAME)
    found = look(monkeypatch, tmp_path, store)
    assert found == dict.fromkeys(
        ("tracking URI", "tracking store", "experiment", "artifact store", "registered model"), "ok"
    )
    assert client.search_runs([experiment]) == []
    assert [path for path in (tmp_path / "mlartifacts").rglob("*") if path.is_file()] == []
    assert client.get_registered_model(NAME).tags == {}


def test_artifacts_that_cannot_be_written(monkeypatch, tmp_path, store):
    find_experiment(connect(store), NAME)
    (tmp_path / "mlartifacts").write_text("a file in the folder's place")
    found = look(monkeypatch, tmp_path, store)
    assert found["artifact store"] == "fail"
    assert found["experiment"] == "ok"


def test_what_does_not_exist_yet_was_not_tried(monkeypatch, tmp_path, store):
    connect(store)
    found = look(monkeypatch, tmp_path, store)
    assert found["experiment"] == found["registered model"] == "warn"
    assert "artifact store" not in found


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        ("log_metric", {"experiment": "fail"}),
        ("delete_run", {"deletion": "warn"}),
        ("delete_registered_model_tag", {"registered model": "fail"}),
        ("delete_registered_model_alias", {"registered model": "warn"}),
    ],
)
def test_what_is_not_permitted(monkeypatch, tmp_path, store, method, wanted):
    """With EDIT, neither a run nor an alias can be deleted; the other checks still run."""
    client = connect(store)
    experiment = find_experiment(client, NAME)
    client.create_registered_model(NAME)

    def refused(*_: object) -> None:
        raise MlflowException("Permission denied")

    monkeypatch.setattr(MlflowClient, method, refused)
    found = look(monkeypatch, tmp_path, store)
    assert {name: status for name, status in found.items() if status != "ok"} == wanted
    left = client.search_runs([experiment])
    assert [run.info.status for run in left] == ["KILLED"] * (method == "delete_run")


def test_an_artifact_that_cannot_be_deleted(monkeypatch, tmp_path, store):
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    def refused(*_: object) -> None:
        raise MlflowException("Permission denied")

    find_experiment(connect(store), NAME)
    monkeypatch.setattr(LocalArtifactRepository, "delete_artifacts", refused)
    found = look(monkeypatch, tmp_path, store)
    assert (found["experiment"], found["artifact store"]) == ("ok", "warn")


def test_a_deleted_experiment(monkeypatch, tmp_path, store):
    client = connect(store)
    client.delete_experiment(find_experiment(client, NAME))
    assert look(monkeypatch, tmp_path, store)["experiment"] == "fail"
