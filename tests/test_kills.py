"""`heartseg evaluate` and `heartseg register` killed at any of their writes, and run again."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from heartseg.config.params import Params
from heartseg.data.prepared import file_digest, write_prepared
from heartseg.models import build_network
from heartseg.models.trained import save_trained
from heartseg.paths import model_dir, prepared_path
from heartseg.tracking.client import connect
from tests.clones import run, set_params
from tests.evaluation.test_evaluate import camus_samples
from tests.examples import ROOT, small_recipe, training_record
from tests.tracking.stores import _cold_store, _own_environment, new_run, store

__all__ = ["_cold_store", "_own_environment", "store"]

NAME = "heartseg-camus"

# A process that has imported all it needs, and forks a command for each kill.
SCRIPT = """
import json, os, signal, sys
from pathlib import Path
import mlflow, mlflow.pytorch, torch
from mlflow import MlflowClient
from heartseg import evaluate, register
from heartseg.evaluation import evaluate as evaluation, register as registration

results = Path("results/camus")

def fork(command, owner=None, name=None, after=True):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            if owner is not None:
                original = getattr(owner, name)
                def die(*arguments, **options):
                    if after:
                        original(*arguments, **options)
                    os.kill(os.getpid(), signal.SIGKILL)
                setattr(owner, name, die)
            command.main(["camus"])
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    wanted = 0 if owner is None else signal.SIGKILL
    assert status == wanted, (command.__name__, name, status)
    for path in results.glob("*.json"):
        json.loads(path.read_text())  # whole, or not there

fork(evaluate, evaluation, "write_text")
fork(evaluate, MlflowClient, "log_artifact")
fork(evaluate)
fork(register, MlflowClient, "create_logged_model")
fork(register, MlflowClient, "create_registered_model")  # after the package was logged
fork(register, MlflowClient, "create_model_version")
fork(register, MlflowClient, "set_registered_model_alias")
fork(register, registration, "write_text", after=False)
fork(register)
"""


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_killed_at_any_write_and_run_again(
    params: Params, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    few = {"bootstrap_samples": 100, "tta": "none", "postprocess": "none"}  # for speed
    set_params(tmp_path, {f"evaluate.{key}": value for key, value in few.items()})
    set_params(tmp_path, {"register.camus.floor": {}})  # the weights are random
    samples = camus_samples()
    split = {sample.patient: "test" for sample in samples} | {"spare": "val", "p3": "train"}
    facts = {
        "dataset": "camus",
        "source": "data/CAMUS_public",
        "patients": {"train": 1, "val": 1, "test": 2},
        "cases": {"train": 2, "val": 4, "test": 8},
        "split": {"method": "official"},
        "skipped": [],
    }
    write_prepared(prepared_path("camus"), samples, split, facts)
    recipe = small_recipe(params)
    torch.manual_seed(0)
    run_id = new_run(store)
    training = training_record(
        recipe,
        epoch=2,
        data_digest=file_digest(prepared_path("camus")),
        tracking_uri=store,
        experiment=NAME,
        mlflow_run_id=run_id,
    )
    save_trained(model_dir("camus"), build_network(recipe.model, 4).state_dict(), training)
    client = connect(store)
    client.set_terminated(run_id)

    run([sys.executable, "-c", SCRIPT], tmp_path, timeout=580)

    (version,) = client.search_model_versions(f"name = '{NAME}'")
    registered = json.loads((tmp_path / "results/camus/registered.json").read_text())
    assert (registered["version"], registered["alias"]) == (str(version.version), "champion")
    assert client.get_model_version_by_alias(NAME, "champion").version == version.version
    (only,) = client.search_runs([client.get_experiment_by_name(NAME).experiment_id])
    assert (only.info.run_id, only.info.status) == (run_id, "FINISHED")
    (package,) = client.search_logged_models([only.info.experiment_id])
    assert version.source == f"models:/{package.model_id}"
    history = client.get_metric_history(run_id, "test/Dice")
    assert len({point.value for point in history}) == 1
    left = {path.name for path in (tmp_path / "results/camus").iterdir()}
    assert not [name for name in left if name.endswith(".tmp") and "figures" not in name]
