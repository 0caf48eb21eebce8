"""`heartseg sweep` on Ray: interrupted, killed three times, continued and applied."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import psutil
import pytest
import yaml
from optuna.trial import FrozenTrial, TrialState

from heartseg.config.params import load_params
from heartseg.tracking.client import connect
from heartseg.training.journal import read_epochs, read_progress
from tests.clones import environment, run
from tests.examples import ROOT, small_recipe, write_disks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TRIALS = 5
SWEEP = {
    "recipe": "camus",
    "metric": "dice_mean",
    "mode": "max",
    "space": {
        "learning_rate": {"loguniform": [0.001, 0.1]},
        "batch_size": {"choice": [4, 8]},
        "input_size": {"choice": [32, 48]},
    },
    "sampler": {"name": "random"},
    "pruner": {"name": "asha", "min_epochs": 2, "reduction_factor": 2},
    "trials": TRIALS,
    "hours": None,
    "resources": {"workers": 1, "cpus": 1, "gpus": 0},
    "initial_points": [],
    "seed": 0,
    "register": True,
}
COMMAND = [sys.executable, "-m", "heartseg.sweep", "sweeps/small.yaml"]


@pytest.fixture
def repository(tmp_path) -> Path:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    recipe = small_recipe(load_params(ROOT / "params.yaml"), epochs=4)
    content["recipes"] = {"camus": recipe.model_dump(mode="json")}
    content["pipeline"] = {"camus": "camus"}
    (tmp_path / "params.yaml").write_text("# kept\n" + yaml.safe_dump(content, sort_keys=False))
    write_sweep(tmp_path)
    write_disks(tmp_path, train=240, val=4)
    return tmp_path


def write_sweep(place: Path, **changes: object) -> None:
    (place / "sweeps").mkdir(exist_ok=True)
    (place / "sweeps/small.yaml").write_text(yaml.safe_dump(SWEEP | changes))


def folder(place: Path) -> Path:
    return place / "runs/sweeps/small"


def study(place: Path) -> list[FrozenTrial]:
    """All trials of the study."""
    storage = f"sqlite:///{folder(place)}/study.db"
    try:
        (summary,) = optuna.get_all_study_summaries(storage)
        return optuna.load_study(study_name=summary.study_name, storage=storage).trials
    except Exception:  # it is being created
        return []


def finished(place: Path) -> dict[int, tuple[TrialState, float | None, dict[str, object]]]:
    return {t.number: (t.state, t.value, t.params) for t in study(place) if t.state.is_finished()}


def start(place: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        COMMAND,
        cwd=place,
        env=environment(place),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_until(driver: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    while not reached():
        assert driver.poll() is None, driver.communicate()[0][-3000:]
        time.sleep(0.05)


def in_the_midst_of_an_epoch(place: Path) -> bool:
    now = [read_progress(path.parent) for path in folder(place).glob("trials/*/progress.json")]
    return any(step and step["epoch"] > 1 and 0 < step["step"] < step["steps"] for step in now)


def interrupt(place: Path) -> None:
    """Ctrl-C after the first trial closes all runs and prints the command that continues."""
    driver = start(place)
    wait_until(driver, lambda: bool(finished(place)))
    os.kill(driver.pid, signal.SIGINT)
    said = driver.communicate(timeout=240)[0]
    assert driver.returncode == 130, said[-3000:]
    assert "python -m heartseg.sweep sweeps/small.yaml" in said
    assert "Traceback" not in said
    client = connect(f"sqlite:///{place}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("heartseg-camus").experiment_id])
    assert {one.info.status for one in runs} <= {"FINISHED", "KILLED"}
    assert [one.info.status for one in runs if "heartseg.trial" not in one.data.tags] == ["KILLED"]


def test_an_interruption_and_three_kills_lose_and_repeat_nothing(repository):
    interrupt(repository)
    moments: list[Callable[[], bool]] = [
        lambda: in_the_midst_of_an_epoch(repository),
        lambda: len(finished(repository)) >= 3,
        lambda: (repository / "results/sweeps/small/model").exists(),  # while it evaluates
    ]
    known: dict[int, object] = dict(finished(repository))
    for reached in moments:
        driver = start(repository)
        wait_until(driver, reached)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        time.sleep(5)  # Ray's processes end seconds after their driver
        now = finished(repository)
        assert {n: now[n] for n in known} == known, "a finished trial was lost or repeated"
        known = dict(now)
    assert "best: trial" in run(COMMAND, repository)

    assert sorted(finished(repository)) == list(range(TRIALS))
    own = small_recipe(load_params(ROOT / "params.yaml"))
    assert known[0][2]["learning_rate"] == own.learning_rate  # type: ignore[index]
    repeated = 0
    for number in range(TRIALS):
        trial = folder(repository) / f"trials/{number:03d}"
        lines = [json.loads(line) for line in (trial / "journal.jsonl").read_text().splitlines()]
        repeated += len(lines) - len(read_epochs(trial))
    assert repeated <= 8, "more than the two epochs under way at each stop were done twice"
    print(f"an interruption, 3 kills: trials lost 0, repeated 0, epochs done twice {repeated}")

    client = connect(f"sqlite:///{repository}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("heartseg-camus").experiment_id])
    parents = [one for one in runs if "mlflow.parentRunId" not in one.data.tags]
    children = {int(r.data.tags["heartseg.trial"]): r for r in runs if r not in parents}
    assert len(parents) == 1
    assert len(runs) == TRIALS + 1
    assert {one.info.status for one in runs} == {"FINISHED"}
    for number, child in children.items():
        epochs = [
            entry["epoch"] for entry in read_epochs(folder(repository) / f"trials/{number:03d}")
        ]
        points = client.get_metric_history(child.info.run_id, "dice_mean")
        assert [point.step for point in points] == epochs
        assert child.data.tags["heartseg.state"] in ("complete", "pruned")
        assert set(child.data.params) == set(SWEEP["space"])  # type: ignore[call-overload]
        assert child.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
    artifacts = {a.path for a in client.list_artifacts(parents[0].info.run_id)}
    assert {"sweep.yaml", "trials.csv", "plots"} <= artifacts
    versions = client.search_model_versions("name = 'heartseg-camus'")
    assert len(versions) == 1
    assert versions[0].run_id in {child.info.run_id for child in children.values()}

    # Another call has nothing to do, and other settings are refused.
    assert "best: trial" in run(COMMAND, repository, timeout=100)
    assert len(client.search_model_versions("name = 'heartseg-camus'")) == 1
    write_sweep(repository, metric="dice_lv")
    refused = subprocess.run(
        COMMAND, cwd=repository, env=environment(repository), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "metric: was 'dice_mean', is 'dice_lv'" in refused.stderr
    write_sweep(repository)
    run([*COMMAND[:3], "apply", COMMAND[3]], repository)
    best = max(t.value for t in study(repository) if t.value is not None)
    (winner,) = [t for t in study(repository) if t.value == best]
    applied = load_params(repository / "params.yaml").recipe("camus")
    assert applied.learning_rate == winner.params["learning_rate"]
    assert applied.batch_size == winner.params["batch_size"]
    assert applied.input_size == winner.params["input_size"]
    assert (repository / "params.yaml").read_text().startswith("# kept")

    # After `apply`, the sweep can still be continued, and repeats no trial.
    assert "best: trial" in run(COMMAND, repository, timeout=100)
    assert len(study(repository)) == TRIALS


@pytest.mark.chaos
def test_the_death_of_the_gcs_closes_all_runs(repository):
    driver = start(repository)
    wait_until(driver, lambda: in_the_midst_of_an_epoch(repository))
    for process in psutil.Process(driver.pid).children(recursive=True):
        if process.name() == "gcs_server":
            process.kill()
    said = driver.communicate(timeout=240)[0]
    assert driver.returncode == 2, said[-3000:]
    assert "GCS" in said
    client = connect(f"sqlite:///{repository}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("heartseg-camus").experiment_id])
    assert len(runs) >= 2
    assert {one.info.status for one in runs} <= {"FINISHED", "FAILED", "KILLED"}
