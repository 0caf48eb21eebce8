from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from heartseg.errors import InputError
from heartseg.tracking.client import (
    connect,
    find_experiment,
    flatten,
    log_evaluation,
    open_run,
    repository_root,
    tracking_uri,
)
from heartseg.tracking.faults import without_password
from tests.tracking.stores import RECIPE, free_port, new_run


def test_the_default_store_is_a_database_at_the_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert tracking_uri(Path()) == f"sqlite:///{tmp_path}/mlflow.db"


@pytest.mark.parametrize(
    ("variable", "uri"),
    [
        ("http://tracking:5000", "http://tracking:5000"),
        ("sqlite:////srv/mlflow.db", "sqlite:////srv/mlflow.db"),
        ("sqlite:///store/mlflow.db", "sqlite:///{root}/store/mlflow.db"),
    ],
)
def test_the_variable_of_mlflow_is_honoured(tmp_path, monkeypatch, variable, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", variable)

    assert tracking_uri(tmp_path) == uri.format(root=tmp_path)


@pytest.mark.parametrize("place", [".dvc/tmp/exps/standalone/tmpab", ".dvc/tmp/exps/tmpab"])
@pytest.mark.parametrize("project", ["", "hearts"])
def test_a_temporary_experiment_uses_the_repository_that_was_copied(tmp_path, place, project):
    copy = tmp_path / place
    (copy / ".dvc").mkdir(parents=True)
    (copy / project).mkdir(exist_ok=True)

    assert repository_root(copy / project) == tmp_path / project


@pytest.mark.slow
def test_dvc_runs_its_temporary_experiments_where_we_expect_them(tmp_path):
    """Use the real `dvc exp run --temp`, because DVC chooses its working folder."""
    root = Path(__file__).parents[2]
    code = "from heartseg.tracking.client import tracking_uri; from pathlib import Path; "
    code += "Path('uri.txt').write_text(tracking_uri(Path.cwd()) + '\\n' + str(Path.cwd()))"
    stage = {"cmd": f'{sys.executable} -c "{code}"', "params": ["value"], "outs": ["uri.txt"]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"print": stage}}))
    (tmp_path / "params.yaml").write_text("value: 1\n")
    environment = os.environ | {"PYTHONPATH": str(root), "DVC_NO_ANALYTICS": "1"}
    dvc = [sys.executable, "-m", "dvc"]
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (
        ["git", "init", "-q"],
        [*dvc, "init", "-q"],
        ["git", "add", "."],
        ["git", *identity, "commit", "-qm", "start"],
        [*dvc, "exp", "run", "--temp", "-n", "trial", "-S", "value=2"],
        [*dvc, "exp", "apply", "trial"],
    ):
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    uri, folder = (tmp_path / "uri.txt").read_text().splitlines()
    assert Path(folder) != tmp_path
    assert uri == f"sqlite:///{tmp_path}/mlflow.db"


def test_flatten_joins_keys_by_dots():
    flat = flatten({"model": {"name": "unet", "channels": [4, 8]}, "weights": None})

    assert flat == {"model.name": "unet", "model.channels": "[4, 8]", "weights": "None"}


def test_a_run_holds_recipe_data_and_tags(store, tmp_path):
    client = connect(store)

    run = client.get_run(new_run(store))

    assert run.info.status == "RUNNING"
    assert run.info.run_name == "camus-1"
    assert client.get_experiment(run.info.experiment_id).name == "heartseg-camus"
    assert run.data.params == {
        "dataset": "camus",
        "model.name": "unet",
        "model.channels": "[4, 8]",
        "epochs": "3",
    }
    assert run.data.tags["git.commit"] == "none"
    [data] = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("camus", "0" * 32)
    assert json.loads(data.dataset.source) == {"uri": "data/prepared/camus.parquet"}
    [recipe] = (tmp_path / "mlartifacts").rglob("recipe.yaml")
    assert yaml.safe_load(recipe.read_text()) == RECIPE


def reopen(uri: str, run_id: str) -> str:
    return open_run(
        connect(uri),
        experiment="heartseg-camus",
        name="camus-1",
        params=RECIPE,
        texts={"recipe.yaml": RECIPE},
        dataset="camus",
        data_source="data/prepared/camus.parquet",
        data_digest="0" * 32,
        tags={"git.commit": "abc"},
        run_id=run_id,
    )


def test_a_resumed_training_continues_its_run(store):
    client = connect(store)
    run_id = new_run(store)
    client.set_terminated(run_id, "FAILED")

    assert reopen(store, run_id) == run_id

    run = client.get_run(run_id)
    assert run.info.status == "RUNNING"
    assert run.data.tags["git.commit"] == "abc"
    assert len(client.search_runs([run.info.experiment_id])) == 1


@pytest.mark.parametrize("deleted", [True, False], ids=["deleted", "of another store"])
def test_a_run_that_is_gone_is_replaced_and_the_user_told(store, caplog, deleted):
    run_id = new_run(store)
    if deleted:
        connect(store).delete_run(run_id)
    else:
        run_id = "f" * 32

    with caplog.at_level(logging.WARNING):
        replacement = reopen(store, run_id)

    assert replacement != run_id
    assert connect(store).get_run(replacement).info.status == "RUNNING"
    assert f"{run_id} was deleted" in caplog.text


def test_a_run_that_cannot_be_set_up_ends_failed(store, monkeypatch):
    client = connect(store)
    monkeypatch.setattr(client, "log_text", lambda *_: 1 / 0)
    experiment = find_experiment(client, "heartseg-camus")

    with pytest.raises(ZeroDivisionError):
        open_run(
            client,
            experiment="heartseg-camus",
            name="camus-1",
            params=RECIPE,
            texts={"recipe.yaml": RECIPE},
            dataset="camus",
            data_source="",
            data_digest="0",
            tags={},
        )

    [run] = client.search_runs([experiment])
    assert run.info.status == "FAILED"


def test_a_deleted_experiment_is_named_with_the_way_back(store):
    client = connect(store)
    number = find_experiment(client, "heartseg-camus")
    client.delete_experiment(number)

    with pytest.raises(InputError, match=f"heartseg-camus.*--experiment-id {number}"):
        find_experiment(client, "heartseg-camus")


def test_a_server_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = f"http://user:secret@127.0.0.1:{free_port()}"

    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI") as caught:
        connect(uri)

    assert "127.0.0.1" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.slow
def test_the_wait_for_a_dead_server_is_bounded(monkeypatch):
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    begin = time.monotonic()

    with pytest.raises(InputError):
        connect(f"http://127.0.0.1:{free_port()}")

    assert time.monotonic() - begin < 20  # MLflow's own setting makes it 250


def test_passwords_are_not_shown():
    assert without_password("postgresql://me:pw@host/db") == "postgresql://***@host/db"
    assert without_password("sqlite:////a@b/mlflow.db") == "sqlite:////a@b/mlflow.db"
    assert without_password("no models:/heartseg-camus@champion") == (
        "no models:/heartseg-camus@champion"
    )
    for password in ("p/w", "p@w", "p:w", "/p@:/w/", "a@host/b"):
        text = f"(http://me:{password}@host:5000/x) and mysql+pymysql://me:{password}@host:1/db."
        assert without_password(text) == (
            "(http://***@host:5000/x) and mysql+pymysql://***@host:1/db."
        )


def test_a_bug_of_ours_is_not_called_a_store_that_does_not_answer(store, monkeypatch):
    client = connect(store)

    def bug(*_, **__):
        return {}["our own"]

    monkeypatch.setattr(MlflowClient, "search_experiments", bug)
    monkeypatch.setattr(MlflowClient, "log_batch", bug)
    with pytest.raises(KeyError):
        connect(store)
    with pytest.raises(KeyError):
        log_evaluation(client, "0" * 32, {"dice": 0.5}, [])


@pytest.mark.slow
def test_a_cold_store_is_made_without_a_word(tmp_path):
    code = (
        "from heartseg.tracking.client import connect, find_experiment; import sys;"
        "client = connect(sys.argv[1]); find_experiment(client, 'e');"
        "run = client.create_run('1'); client.set_terminated(run.info.run_id)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, f"sqlite:///{tmp_path}/mlflow.db"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout + done.stderr == ""
