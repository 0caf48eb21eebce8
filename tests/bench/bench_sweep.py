"""What a sweep costs beyond its trials, against bare Optuna and against the textbook pattern.

Bare: two processes, each running `study.optimize` on the same `fit`, the same points and data,
one thread each, without tracking. Textbook: a Tuner whose every trial runs a TorchTrainer of one
worker.

Run: pytest -s tests/bench/bench_sweep.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from heartseg.config.params import load_params
from tests.clones import environment, run
from tests.examples import ROOT, small_recipe, write_disks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

TRIALS = 16
RATES = [0.001 * 1.2**i for i in range(TRIALS)]

BARE = """
import json, sys
from pathlib import Path
import optuna, torch
from heartseg.config.params import load_params
from heartseg.data.resident import load_resident
from heartseg.training.loop import fit
torch.set_num_threads(1)
recipe = load_params().recipe("camus")
path = Path("data/prepared/camus.parquet")
data = [load_resident(path, split, recipe.input_size) for split in ("train", "val")]
def objective(trial):
    rate = trial.suggest_float("learning_rate", 1e-4, 1.0)
    last = []
    fit(recipe.model_copy(update={"learning_rate": rate}), *data, report=last.append)
    return last[-1].metrics["dice_mean"]
study = optuna.create_study(direction="maximize")
for rate in json.loads(sys.argv[1]):
    study.enqueue_trial({"learning_rate": rate})
study.optimize(objective, n_trials=len(study.trials))
"""


TEXTBOOK = """
import json, sys
import ray
from ray import train, tune
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
def work(config):
    from pathlib import Path
    import torch
    from heartseg.config.params import load_params
    from heartseg.data.resident import load_resident
    from heartseg.training.loop import fit
    torch.set_num_threads(1)
    place = Path(config["place"])
    recipe = load_params(place / "params.yaml").recipe("camus")
    path = place / "data/prepared/camus.parquet"
    data = [load_resident(path, split, recipe.input_size) for split in ("train", "val")]
    fit(recipe.model_copy(update={"learning_rate": config["learning_rate"]}), *data,
        report=lambda epoch: train.report({"dice_mean": epoch.metrics["dice_mean"]}))
def trial(config):
    scaling = ScalingConfig(num_workers=1, resources_per_worker={"CPU": 0.9})
    TorchTrainer(work, train_loop_config=config, scaling_config=scaling).fit()
ray.init(log_to_driver=False, configure_logging=False)
tune.Tuner(
    tune.with_resources(trial, {"CPU": 0.1}),
    param_space={"learning_rate": tune.grid_search(json.loads(sys.argv[1])),
                 "place": sys.argv[2]},
    tune_config=tune.TuneConfig(max_concurrent_trials=2),
    run_config=tune.RunConfig(storage_path=sys.argv[2] + "/textbook", verbose=0),
).fit()
"""


def write_repository(place: Path, images: int) -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    recipe = small_recipe(
        load_params(ROOT / "params.yaml"),
        learning_rate=RATES[0],
        batch_size=8,
        epochs=2,
    )  # fmt: skip
    content["recipes"] = {"camus": recipe.model_dump(mode="json")}
    content["pipeline"] = {"camus": "camus"}
    (place / "params.yaml").write_text(yaml.safe_dump(content))
    write_disks(place, train=images, val=40)


def write_sweep(place: Path) -> list[str]:
    sweep = {
        "recipe": "camus",
        "metric": "dice_mean",
        "mode": "max",
        "space": {"learning_rate": {"choice": RATES}},
        "sampler": {"name": "grid"},
        "pruner": {"name": "none"},
        "trials": TRIALS,
        "hours": None,
        "resources": {"workers": 1, "cpus": 1, "gpus": 0},
        "initial_points": [],
        "seed": 0,
        "register": False,
    }
    (place / "sweeps").mkdir()
    (place / "sweeps/bench.yaml").write_text(yaml.safe_dump(sweep))
    return [sys.executable, "-m", "heartseg.sweep", "sweeps/bench.yaml"]


def seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def bare(place: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", BARE, json.dumps(half)],
            cwd=place,
            env=environment(place) | {"OMP_NUM_THREADS": "1"},
            stderr=subprocess.DEVNULL,
        )
        for half in (RATES[::2], RATES[1::2])
    ]
    assert [process.wait() for process in processes] == [0, 0]


@pytest.mark.parametrize("images", [400, 2000])
def test_overhead(tmp_path, images):
    """The start is the same however long the trials are."""
    write_repository(tmp_path, images)
    command = write_sweep(tmp_path)
    ours = seconds(lambda: run(command, tmp_path, timeout=1800))
    plain = seconds(lambda: bare(tmp_path))
    print(f"\n{TRIALS} trials of {images} images: sweep {ours:.1f} s, bare Optuna {plain:.1f} s")
    print(f"overhead: {ours / plain:.2f} times bare, {ours - plain:.0f} s")
    if images < 1000:
        nested = [sys.executable, "-c", TEXTBOOK, json.dumps(RATES), str(tmp_path)]
        extra = {"RAY_TRAIN_V2_ENABLED": "1"}
        textbook = seconds(lambda: run(nested, tmp_path, timeout=1800, extra=extra))
        print(f"a TorchTrainer nested in every trial: {textbook:.1f} s")
        print(f"{textbook / ours:.1f} times faster than nested")
