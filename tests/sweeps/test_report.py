"""The report of a sweep."""

from __future__ import annotations

import re
from pathlib import Path

import optuna
import pytest
from PIL import Image

from heartseg.sweeps.report import PLOTS, trials_table, write_plots
from heartseg.tracking.trial import Trial


def test_the_table_has_a_row_per_trial_and_a_column_per_field(tmp_path):
    def trial(number, state, epoch, value, reason="", **values):
        return Trial(number, values, Path("trials"), None, state, epoch, value, reason)

    trials = [
        trial(2, "pruned", 5, 0.5, "asha", optimizer="sgd", momentum=0.8),
        trial(0, "complete", 18, 0.75, optimizer="adamw"),
        trial(1, "failed", 2, None, "out of memory", optimizer="adamw"),
    ]
    path = tmp_path / "trials.csv"
    trials_table(trials, "dice_mean").to_csv(path, index=False)
    assert path.read_text().splitlines() == [
        "trial,state,dice_mean,epochs,optimizer,reason,momentum",
        "0,complete,0.75,18,adamw,,",
        "1,failed,,2,adamw,out of memory,",
        "2,pruned,0.5,5,sgd,asha,0.8",
    ]
    assert trials_table([], "dice_mean").empty


@pytest.fixture(scope="module")
def study() -> optuna.Study:
    """Ten trials in memory; batch_size applies to half of them."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    for n in range(10):
        trial = study.ask({"learning_rate": optuna.distributions.FloatDistribution(0.001, 0.1)})
        if n % 2:
            trial.suggest_categorical("batch_size", [8, 12])
        study.tell(trial, 0.5 + trial.params["learning_rate"])
    study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
    return study


@pytest.mark.slow
def test_all_plots_are_written_and_need_no_network(study, tmp_path):
    files = write_plots(study, "dice_mean", tmp_path / "plots")
    assert sorted(path.name for path in files) == sorted(
        f"{name}.{kind}" for name in PLOTS for kind in ("html", "png")
    )
    for path in files:
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert min(image.size) > 300
                assert len(image.convert("L").getcolors()) > 20  # something is drawn
        else:
            page = path.read_text(encoding="utf-8")
            assert not re.search(r"<(script|link)[^>]+(src|href)=", page)
            assert "Plotly.newPlot" in page
            assert len(page) > 2_000_000  # it contains plotly
            assert "dice_mean" in page


def test_plots_for_which_there_are_too_few_trials_are_left_out(tmp_path):
    study = optuna.create_study()
    assert write_plots(study, "dice_mean", tmp_path) == []
    trial = study.ask({"learning_rate": optuna.distributions.FloatDistribution(0.001, 0.1)})
    trial.suggest_categorical("batch_size", [8, 12])
    study.tell(trial, 0.5)
    names = {path.name for path in write_plots(study, "dice_mean", tmp_path)}
    assert "history.html" in names
    assert "importances.html" not in names
    assert names == {path.name for path in tmp_path.iterdir()}
