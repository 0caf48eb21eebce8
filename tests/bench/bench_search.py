"""What TPE with ASHA finds within a fixed time, against random search without pruning.

Three seeds each, in turn, on real CAMUS at 32 pixels (HEARTSEG_CAMUS_ROOT), else on the phantoms
at 64.

Run: pytest -s tests/bench/bench_search.py     (MINUTES each, six times)
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
import yaml
from optuna.trial import TrialState

from tests.clones import run, set_params
from tests.examples import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

REAL = os.environ.get("HEARTSEG_CAMUS_ROOT")
MINUTES = 3.0 if REAL else 1.2
EPOCHS = 6
SEARCHES = {
    "TPE + ASHA": (
        {"name": "tpe", "multivariate": True, "constant_liar": True, "startup_trials": 4},
        {"name": "asha", "min_epochs": 1, "reduction_factor": 3},
    ),
    "random": ({"name": "random"}, {"name": "none"}),
}


@pytest.fixture
def repository(tmp_path) -> Path:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    changes = {
        "recipes.camus-unet.input_size": 32 if REAL else 64,
        "recipes.camus-unet.epochs": EPOCHS,
        "recipes.camus-unet.precision": "fp32",
    }
    if REAL:
        changes["datasets.camus.source"] = REAL
    set_params(tmp_path, changes)
    if not REAL:
        run([sys.executable, "-m", "heartseg.phantom", "camus"], tmp_path)
    run([sys.executable, "-m", "heartseg.prepare", "camus"], tmp_path)
    (tmp_path / "sweeps").mkdir()
    return tmp_path


def search(place: Path, name: str, seed: int) -> tuple[float, int]:
    """Best validation Dice of a trial that ran to its end, and the trials begun."""
    sampler, pruner = SEARCHES[name]
    stem = f"{sampler['name']}{seed}"
    sweep = {
        "recipe": "camus-unet",
        "metric": "dice_mean",
        "mode": "max",
        "space": {
            "learning_rate": {"loguniform": [0.0001, 0.03]},
            "batch_size": {"choice": [6, 12, 24, 48]},
            "weight_decay": {"loguniform": [0.000001, 0.1]},
        },
        "sampler": sampler,
        "pruner": pruner,
        "trials": None,
        "hours": MINUTES / 60,
        "resources": {"workers": 1, "cpus": 1, "gpus": 0},
        "initial_points": [],
        "seed": seed,
        "register": False,
    }
    (place / f"sweeps/{stem}.yaml").write_text(yaml.safe_dump(sweep))
    run([sys.executable, "-m", "heartseg.sweep", f"sweeps/{stem}.yaml"], place, timeout=3600)
    storage = f"sqlite:///{place}/runs/sweeps/{stem}/study.db"
    (summary,) = optuna.get_all_study_summaries(storage)
    trials = optuna.load_study(study_name=summary.study_name, storage=storage).trials
    # The first trial is the recipe's own point in both searches: it is no find.
    found = [t.value for t in trials[1:] if t.state == TrialState.COMPLETE and t.value is not None]
    return max(found, default=float("nan")), len(trials)


def test_search(repository):
    best: dict[str, list[float]] = {name: [] for name in SEARCHES}
    for seed in range(3):
        for name in SEARCHES:
            value, trials = search(repository, name, seed)
            best[name].append(value)
            print(f"\nseed {seed}, {name}: best Dice {value:.4f} of {trials} trials")
    for name, values in best.items():
        print(f"{name}: {np.round(values, 4)}, mean {np.nanmean(values):.4f}")
