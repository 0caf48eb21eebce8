"""Messages about a store that refuses, does not answer, or lacks a model or run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from mlflow.exceptions import MlflowException, RestException

from heartseg import lineage, pull, sync
from heartseg.errors import InputError
from heartseg.tracking import pulled
from heartseg.tracking.ancestors import find_model
from heartseg.tracking.artifacts import read_artifact
from heartseg.tracking.client import connect
from heartseg.tracking.faults import explain, explain_store_fault, refusal_status, writing_to_store
from tests.examples import ROOT
from tests.tracking.stores import Server, forget_run, free_port, new_run
from tests.tracking.test_moved_store import NAME, register

BAD_LOGIN = MlflowException("API request to endpoint /x failed with error code 401 != 200")
FORBIDDEN = RestException({"error_code": "PERMISSION_DENIED", "message": "Permission denied"})
DOWNLOAD = MlflowException("failures while downloading: HTTPError('403 Client Error: FORBIDDEN')")


def test_a_missing_model_has_five_causes(store, tmp_path, monkeypatch):
    client = connect(store)

    def said(uri: str, of: str = store) -> str:
        with pytest.raises(InputError) as told:
            find_model(connect(of), uri)
        with pytest.raises(InputError) as pulling:
            pulled.fetch_package(of, uri)
        assert str(pulling.value).split(":")[0] == str(told.value).split(":")[0]
        return str(told.value)

    assert "Registered there: nothing yet" in said(f"models:/{NAME}/1")
    register(tmp_path, "one")
    register(tmp_path, "two")
    client.set_registered_model_alias(NAME, "champion", "2")

    missing = said("models:/heartseg-camos@champion")
    assert f"no model heartseg-camos. Registered there: {NAME}" in missing
    assert "no version 7. It has versions 1, 2; aliases: @champion (version 2)" in said(
        f"models:/{NAME}/7"
    )
    assert "no alias winner. It has versions 1, 2; aliases: @champion (version 2)" in said(
        f"models:/{NAME}@winner"
    )
    assert "no version best" in said(f"models:/{NAME}/best")

    run_id = client.get_model_version(NAME, "1").run_id
    client.delete_run(run_id)
    forget_run(store, run_id)
    with pytest.raises(InputError, match=f"version 1 of .* run {run_id} is gone"):
        find_model(client, f"models:/{NAME}/1")
    shutil.rmtree(tmp_path / "mlartifacts")
    with pytest.raises(InputError, match=r"version 2 of .*its files cannot be read"):
        pulled.fetch_package(store, f"models:/{NAME}@champion")

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InputError, match="does not answer"):
        pulled.fetch_package(f"http://127.0.0.1:{free_port()}", f"models:/{NAME}/1")


def test_a_refusal_is_told_from_an_outage():
    uri = "http://host:5000"
    assert [refusal_status(one) for one in (BAD_LOGIN, FORBIDDEN, DOWNLOAD)] == [401, 403, 403]
    assert refusal_status(MlflowException("run 401 has no metric 403")) is None
    assert "password" in explain(BAD_LOGIN, uri)
    for error in (FORBIDDEN, DOWNLOAD):
        assert "does not permit" in explain(error, uri)
        assert "does not answer" not in explain(error, uri)


def test_a_call_that_the_store_rejects_stays_a_bug_of_ours():
    for bug in (
        MlflowException("Param name is invalid", error_code=1000),
        KeyError("503 Server Error"),
        FileNotFoundError("weights"),
    ):
        assert explain_store_fault(bug) is None
    for fault in (BAD_LOGIN, FORBIDDEN, MlflowException("API request failed with exception x")):
        assert explain_store_fault(fault) is not None


def test_a_refusal_in_the_midst_of_a_command(store, monkeypatch):
    """If the password changes during a command, nothing is reported as missing."""
    client = connect(store)
    run_id = new_run(store)

    def refuse(*_, **__):
        raise BAD_LOGIN

    monkeypatch.setattr(type(client), "download_artifacts", refuse)
    with pytest.raises(InputError, match="password"):
        read_artifact(client, run_id, "recipe.yaml")
    with pytest.raises(InputError, match="password"), writing_to_store(client, "the figure"):
        refuse()
    with pytest.raises(KeyError), writing_to_store(client, "the figure"):
        raise KeyError("ours")


class WithUsers(Server):
    """A real server with authentication."""

    def command(self) -> list[str]:
        return [*super().command(), "--app-name", "basic-auth"]

    def variables(self) -> dict[str, str]:
        ini = self.folder / "auth.ini"
        ini.write_text(
            "[mlflow]\ndefault_permission = READ\n"
            f"database_uri = sqlite:///{self.folder}/auth.db\n"
            "admin_username = admin\nadmin_password = first-password-1\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        )
        return {"MLFLOW_AUTH_CONFIG_PATH": str(ini), "MLFLOW_FLASK_SERVER_SECRET_KEY": "key"}


@pytest.mark.slow
def test_a_password_that_changed_is_called_that_by_every_command(store, tmp_path, monkeypatch):
    folder = tmp_path / "server"
    folder.mkdir()
    shutil.copy(tmp_path / "mlflow.db", folder)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    waits = tmp_path / "runs/camus-1"
    waits.mkdir(parents=True)
    (waits / "run.json").write_text('{"opening": {}, "sent": false}')
    server = WithUsers(folder)
    try:
        server.start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "first-password-1")
        connect(server.uri)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "the-new/pass@word")
        model = f"models:/{NAME}@champion"
        for main, arguments in (
            (lineage.main, [model]),
            (lineage.main, ["--patient", "p1"]),
            (pull.main, [model, "--to", "out"]),
            (sync.main, []),
        ):
            with pytest.raises(InputError, match="user or password") as told:
                main(arguments)
            assert "the-new" not in str(told.value)
        done = subprocess.run(
            [sys.executable, "-m", "heartseg", "lineage", model],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 2
        assert "user or password" in done.stderr
        assert "Traceback" not in done.stderr
    finally:
        server.stop()


def test_a_dead_server_is_named_by_its_cause(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InputError) as told:
        connect(f"http://127.0.0.1:{free_port()}")
    assert "Connection refused" in str(told.value)
    assert "HTTPConnectionPool" not in str(told.value)
