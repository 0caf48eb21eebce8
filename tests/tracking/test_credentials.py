"""Passwords for the tracking server: permissions of their file, removal from URIs."""

from __future__ import annotations

import os

import pytest

from heartseg.errors import InputError
from heartseg.tracking.client import connect, tracking_uri
from heartseg.tracking.credentials import check_credentials_file, without_credentials


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("USERNAME", "PASSWORD", "URI"):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "")
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}")
    return tmp_path


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666, 0o601])
def test_a_file_that_others_may_read_is_refused(home, mode):
    path = home / ".mlflow/credentials"
    path.parent.mkdir()
    path.write_text("[mlflow]\nmlflow_tracking_password = secret-of-anna\n")
    path.chmod(mode)
    with pytest.raises(InputError, match=f"{mode:03o}.*chmod 600") as refused:
        check_credentials_file()
    assert "secret-of-anna" not in str(refused.value)
    with pytest.raises(InputError, match="chmod 600"):
        connect("http://127.0.0.1:1")  # before anybody is asked
    path.chmod(0o600)
    check_credentials_file()


def test_without_a_file_there_is_nothing_to_refuse():
    check_credentials_file()


@pytest.mark.parametrize(
    ("given", "clean", "user", "password"),
    [
        ("http://anna:s%40cret@host:5000", "http://host:5000", "anna", "s@cret"),
        ("https://anna:a:b@host/mlflow?x=1", "https://host/mlflow?x=1", "anna", "a:b"),
        ("http://anna:pa/ss@wo:rd/@host:5000", "http://host:5000", "anna", "pa/ss@wo:rd/"),
        ("https://anna@[::1]:5000", "https://[::1]:5000", "anna", ""),
    ],
)
def test_name_and_password_leave_the_uri(tmp_path, monkeypatch, given, clean, user, password):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    assert tracking_uri(tmp_path) == clean
    assert os.environ["MLFLOW_TRACKING_URI"] == clean  # MLflow's own code reads it too
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == user
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == password
    assert tracking_uri(tmp_path) == clean


@pytest.mark.parametrize(
    "uri", ["http://host:5000", "sqlite:////tmp/a@b.db", "postgresql://mlflow:pw@host/mlflow"]
)
def test_other_uris_stay_as_they_are(uri):
    assert without_credentials(uri) == uri
    assert "MLFLOW_TRACKING_PASSWORD" not in os.environ
