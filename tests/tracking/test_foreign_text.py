"""Hostile texts in a shared store are shown as plain text and have no other effect."""

from __future__ import annotations

import io
import json
import os
import pty
import shutil
import sys
import unicodedata
from pathlib import Path

import pytest
import yaml

from heartseg.checks.check import Check
from heartseg.cli import run_command
from heartseg.doctor import show
from heartseg.errors import InputError
from heartseg.lineage import main as lineage
from heartseg.reproduce import main as reproduce
from heartseg.tracking import ancestors, evaluations, pulled, registry
from heartseg.tracking.client import connect, open_run
from heartseg.tracking.provenance import patch_md5, working_patch
from tests.examples import ROOT
from tests.tracking.stores import forget_run
from tests.tracking.test_provenance import git

pytestmark = pytest.mark.slow

NAME = "heartseg-camus"
EVIL = "\x1b[2J\u202eevil\nerror: forged\x9b[/x][bold]\u2066"
CODE = "EVIL = False\n"


def is_clean(text: str) -> bool:
    return all(unicodedata.category(c) not in ("Cc", "Cf", "Cs") for c in text.replace("\n", ""))


@pytest.fixture
def run_id(store, tmp_path, monkeypatch) -> str:
    """A run with a champion version, in which every text that others can choose is hostile."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    keys = ("dvc.source", "dvc.source_md5", "heartseg.recipe", "git.branch", "git.commit")
    keys += ("git.patch_md5", "mlflow.user", "machine.device", "machine.threads", "version.torch")
    keys += ("heartseg.sweep", "heartseg.trial", "dvc.experiment", "heartseg.started_from")
    tags = dict.fromkeys(keys, EVIL) | {"heartseg.dataset": "camus", "git.dirty": "true"}
    run_id = open_run(
        connect(store),
        experiment=NAME,
        name=EVIL,
        params={"optimizer": EVIL},
        texts={"recipe.yaml": {"model": {"name": EVIL}, "loss": EVIL}},
        dataset="camus",
        data_source="data",
        data_digest="0" * 32,
        tags=tags | {"dvc.prepared_md5": EVIL, "mlflow.runName": EVIL},
    )
    client = registry.use_store(store)
    client.log_text(run_id, json.dumps(tags | {f"machine.{EVIL}": EVIL}), "lineage/machine.json")
    cases = {"train": {EVIL: [EVIL]}, EVIL: {"p": []}}
    client.log_text(run_id, json.dumps(cases), "lineage/cases.json")
    experiment = client.get_run(run_id).info.experiment_id
    model = client.create_logged_model(experiment, name="unet", source_run_id=run_id)
    tags = dict.fromkeys(
        (registry.METRIC_TAG, registry.DATA_TAG, registry.SPLIT_TAG, registry.REASON_TAG), EVIL
    )
    tags |= {registry.VALUE_TAG: "0.5", registry.WEIGHTS_TAG: EVIL, registry.POSTPROCESS_TAG: EVIL}
    registry.register_version(client, NAME, run_id, f"models:/{model.model_id}", tags)
    client.set_registered_model_alias(NAME, "champion", "1")
    client.update_model_version(NAME, "1", f"# Card\n\n{EVIL}\tend\n")
    return run_id


@pytest.mark.parametrize("asked", [f"models:/{NAME}@champion", "abcdef", "--patient=p", "--json"])
def test_lineage(run_id, store, capsys, asked):
    connect(store).set_tag(run_id, "dvc.source_md5", f"abcdef{EVIL}")
    lineage([asked] if asked != "--json" else [f"runs:/{run_id}", "--json"])
    told = capsys.readouterr().out
    assert "evil" in told
    assert is_clean(told)
    assert not any(line.startswith("error: forged") for line in told.splitlines())


def test_versions_without_a_run(run_id, store, capsys):
    client = connect(store)
    name = EVIL.replace("/", "").replace(":", "")
    client.create_registered_model(name)
    client.create_model_version(name, client.get_model_version(NAME, "1").source, run_id)
    client.delete_run(run_id)
    forget_run(store, run_id)
    lineage(["data"])
    assert is_clean(capsys.readouterr().out)
    with pytest.raises(InputError, match="Registered there") as error:
        lineage(["models:/none@champion"])
    assert is_clean(str(error.value))
    assert "\n" not in str(error.value)


def test_card_reasons_and_titles(run_id, store):
    client = connect(store)
    source = client.get_model_version(NAME, "1").source
    origin = {"run_id": run_id, "model_id": source.removeprefix("models:/"), "model": source}
    title, card = pulled.read_card(store, origin)
    assert title == f"{NAME} version 1"
    assert card.startswith("# Card\n\n")
    assert card.endswith("\tend\n")
    assert is_clean(card.replace("\t", ""))

    assert is_clean(registry.promote(client, NAME, "1", "max").reason)  # what its tag says
    tags = {registry.METRIC_TAG: "dice", registry.VALUE_TAG: "0.9", registry.DATA_TAG: "d"}
    model = f"models:/{source.removeprefix('models:/')}"
    second = registry.register_version(client, NAME, run_id, model, tags)
    reason = registry.promote(client, NAME, second, "max").reason
    assert "evil" in reason  # the champion was judged by another metric
    assert is_clean(reason)
    assert "\n" not in reason

    found = evaluations.read_evaluated_model(client, f"runs:/{run_id}")
    texts = [found.title, *evaluations.describe_model(found).values(), *found.recipe.values()]
    assert all(is_clean(str(text)) and "\n" not in str(text) for text in texts)


def test_what_ends_a_command_and_what_doctor_shows(capsys):
    def fails(_: object) -> None:
        raise InputError(f"bad.csv: {EVIL}\nMend it")

    with pytest.raises(SystemExit, match="2"):
        run_command(fails)
    told = capsys.readouterr().err
    assert is_clean(told)
    assert told.count("\n") == 3  # a list of problems has lines
    show([Check("Ray", EVIL, "fail", EVIL)])
    assert is_clean(capsys.readouterr().out)


# --- code that reproduce would run --------------------------------------------------------


@pytest.fixture
def recorded(store, tmp_path, monkeypatch) -> tuple[str, Path]:
    """The URI of a run with a patch in a repository of one commit, and the stored patch."""
    git(tmp_path, "init", "--quiet")
    (tmp_path / "heartseg").mkdir()
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "heartseg/model.py").write_text(CODE)
    git(tmp_path, "add", "params.yaml", "heartseg")
    author = "--author=Ada\u202e Lovelace <ada@example.org>"
    git(tmp_path, "commit", "--quiet", author, "--message", "First\x1b[2J subject")
    (tmp_path / "heartseg/model.py").write_bytes(CODE.encode() + b"# caf\xe9\nEVIL = True\n")
    (tmp_path / "heartseg/new.py").write_text("NEW = 1\n")
    patch = working_patch(tmp_path)
    git(tmp_path, "checkout", "--quiet", ".")
    (tmp_path / "heartseg/new.py").unlink()
    monkeypatch.chdir(tmp_path)
    client = connect(store)
    run_id = open_run(
        client,
        experiment=NAME,
        name="camus",
        params={},
        texts={},
        dataset="camus",
        data_source="data",
        data_digest="0" * 32,
        tags={
            "git.commit": git(tmp_path, "rev-parse", "HEAD"),
            "git.dirty": "true",
            "git.patch_md5": patch_md5(patch),
            "heartseg.dataset": "camus",
            "dvc.prepared_md5": "0" * 32,
            "dvc.source": "data/gone",
        },
    )
    client.log_text(run_id, yaml.safe_dump({"dataset": "camus"}), "recipe.yaml")
    client.log_text(run_id, "{}", "evaluation/report.json")
    client.log_text(run_id, '{"machine.threads": "1"}', "lineage/machine.json")
    (tmp_path / "patch.diff").write_bytes(patch.encode(errors="surrogateescape"))
    client.log_artifact(run_id, str(tmp_path / "patch.diff"), "lineage")
    place = tmp_path / f"mlartifacts/{NAME}/{run_id}/artifacts/lineage/patch.diff"
    assert place.exists()
    return f"runs:/{run_id}", place


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (None, "--yes"),
        ("n", "nothing was run"),
        ("", "nothing was run"),
        ("y", "data/gone does not exist"),  # it went on
        ("--yes", "data/gone does not exist"),
    ],
)
def test_reproduce_shows_the_code_and_asks(recorded, monkeypatch, capsys, answer, outcome):
    uri, patch = recorded
    arguments = [uri, "--yes"] if answer == "--yes" else [uri]
    if answer in (None, "--yes"):
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{answer}\n"))  # as of a pipe
    else:
        person, terminal = pty.openpty()
        os.write(person, f"{answer}\n".encode())
        monkeypatch.setattr(sys, "stdin", os.fdopen(terminal))
    with pytest.raises(InputError, match=outcome):
        reproduce(arguments)
    told = capsys.readouterr().err
    assert is_clean(told.replace("\t", ""))
    for word in ("Ada Lovelace <ada@example.org>", "First[2J subject", "2\t0\theartseg/model.py"):
        assert word in told
    assert "1\t0\theartseg/new.py" in told
    assert patch_md5(patch.read_bytes().decode(errors="surrogateescape")) in told
    ran = " and patch.diff in " in told
    assert ran == (answer in ("y", "--yes"))


@pytest.mark.parametrize("fault", ["changed", "deleted", "added", "branch"])
def test_reproduce_refuses_code_that_was_not_recorded(recorded, store, fault):
    uri, patch = recorded
    run_id = uri.removeprefix("runs:/")
    if fault == "changed":
        patch.write_bytes(patch.read_bytes().replace(b"NEW = 1", b"NEW = 2"))
    elif fault == "deleted":
        patch.unlink()
    elif fault == "added":
        connect(store).set_tag(run_id, "git.patch_md5", "none")
    else:
        connect(store).set_tag(run_id, "git.commit", "HEAD")
    reason = "has no commit HEAD" if fault == "branch" else "uncommitted changes of MD5"
    with pytest.raises(InputError, match=reason):
        reproduce([uri, "--yes"])


def test_a_hash_that_is_an_option_of_git(store, recorded):
    uri, _ = recorded
    connect(store).set_tag(uri.removeprefix("runs:/"), "git.commit", "--output=owned")
    with pytest.raises(InputError, match="has no commit"):
        reproduce([uri, "--yes"])
    assert ancestors.find_model(connect(store), uri).tags["git.commit"] == "--output=owned"
    assert not Path("owned").exists()
