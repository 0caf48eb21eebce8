"""The report of a sweep: Optuna's plots and the table of trials."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    import optuna

    from heartseg.tracking.trial import Trial

PLOTS = {
    "history": ("plot_optimization_history", 1),
    "importances": ("plot_param_importances", 2),
    "parallel_coordinate": ("plot_parallel_coordinate", 1),
    "slice": ("plot_slice", 1),
}
"""Function of optuna.visualization and the smallest number of complete trials for which it draws
more than empty axes, by file name."""

_log = logging.getLogger(__name__)


def trials_table(trials: Sequence[Trial], metric: str) -> pd.DataFrame:
    """Return a table with a row per trial: number, state, metric, epochs, values and reason."""
    return pd.DataFrame(
        {
            "trial": trial.number,
            "state": trial.state,
            metric: trial.value,
            "epochs": trial.epoch,
            **trial.values,
            "reason": trial.reason,
        }
        for trial in sorted(trials, key=lambda trial: trial.number)
    )


def write_plots(study: optuna.Study, metric: str, folder: Path) -> list[Path]:
    """Write Optuna's plots of a study as NAME.html and NAME.png.

    The HTML files load nothing from the network. Plots that need more complete trials are skipped.

    Returns:
        The written files.
    """
    import matplotlib

    matplotlib.use("Agg")
    import optuna.visualization as interactive
    import optuna.visualization.matplotlib as still
    from matplotlib import pyplot as plt
    from optuna.trial import TrialState

    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    for name, (function, fewest) in PLOTS.items():
        if len(complete) < fewest:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                figure = getattr(interactive, function)(study, target_name=metric)
                getattr(still, function)(study, target_name=metric)
        except (ValueError, RuntimeError, ZeroDivisionError) as error:
            _log.info("no plot %s: %s", name, error)
            plt.close("all")
            continue
        files += [folder / f"{name}.html", folder / f"{name}.png"]
        figure.write_html(files[-2], include_plotlyjs=True)
        plt.gcf().set_size_inches(9, 5)
        plt.savefig(files[-1], dpi=110, bbox_inches="tight")
        plt.close("all")
    return files
