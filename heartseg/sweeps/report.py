"""The report of a sweep: its trials as a table and a figure, and Optuna's plots."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from heartseg.report.colours import BLACK, BLUE, GREY, ORANGE

if TYPE_CHECKING:
    import optuna

    from heartseg.tracking.trial import Trial

PLOTS = {
    "history": ("plot_optimization_history", 1),
    "importances": ("plot_param_importances", 2),
    "parallel_coordinate": ("plot_parallel_coordinate", 2),
    "slice": ("plot_slice", 2),
}
"""Function of optuna.visualization, and the smallest useful number of complete trials, by file."""
PANELS = 4  # of the figure of trials, side by side

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


def trials_figure(rows: Sequence[Trial], metric: str, mode: str) -> Figure:
    """Draw the metric over the trial number and over each sampled value, with a point per trial.

    Pruned trials have the value of their last epoch and a hollow mark. The best trial has a star.

    Args:
        rows: trials; those without a value are left out.
        metric: its name.
        mode: "max" or "min".
    """
    known = sorted((row for row in rows if row.value is not None), key=lambda row: row.number)
    complete = [row for row in known if row.state == "complete"]
    sign = 1 if mode == "max" else -1
    best = max(complete, key=lambda row: sign * float(row.value or 0), default=None)
    fields = list(dict.fromkeys(field for row in known for field in row.values))
    lines = -(-(1 + len(fields)) // PANELS)
    width = min(PANELS, 1 + len(fields))
    figure = Figure(figsize=(2.9 * width, 2.9 * lines + 0.4), dpi=100, layout="constrained")
    panels = figure.subplots(lines, width, squeeze=False, sharey=True).flatten()
    for axes, field in zip(panels, ["trial", *fields], strict=False):
        own = known if field == "trial" else [row for row in known if field in row.values]
        x: list[Any] = [row.number if field == "trial" else row.values[field] for row in own]
        numbers = all(isinstance(value, int | float) for value in x)
        if not numbers or (len(set(x)) <= 5 and field != "trial"):  # a few choices side by side
            choices = sorted(set(x)) if numbers else sorted(set(map(str, x)))
            x = [choices.index(value if numbers else str(value)) for value in x]
            axes.set_xticks(range(len(choices)), [str(choice) for choice in choices])
            axes.set_xlim(-0.5, max(0.5, len(choices) - 0.5))
        elif field == "trial":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        elif min(x) > 0 and max(x) / min(x) > 5:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        for at, row in zip(x, own, strict=True):
            done = row.state == "complete"
            colour, fill = (BLUE, BLUE) if done else (GREY, "none")
            axes.plot(at, row.value, "o", color=colour, mfc=fill, markersize=6)
            if row is best:
                axes.plot(at, row.value, "*", color=ORANGE, mec=BLACK, markersize=14)
        axes.set_xlabel(field)
        axes.tick_params(labelsize=8)
        axes.grid(axis="y", linewidth=0.4)
    for axes in panels[::width]:
        axes.set_ylabel(metric)
    for axes in panels[1 + len(fields) :]:
        axes.set_visible(False)
    marks = [
        Line2D([], [], linestyle="", marker="o", color=BLUE, label="complete"),
        Line2D([], [], linestyle="", marker="o", color=GREY, mfc="none", label="pruned"),
        Line2D([], [], linestyle="", marker="*", color=ORANGE, mec=BLACK, ms=12, label="best"),
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=3, fontsize=8)
    return figure


def write_plots(study: optuna.Study, metric: str, folder: Path) -> list[Path]:
    """Write Optuna's plots of a study as NAME.html files, which need no network.

    The HTML files load nothing from the network. Plots that need more complete trials are skipped.

    Returns:
        The written files.
    """
    import optuna.visualization as interactive
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
        except (ValueError, RuntimeError, ZeroDivisionError) as error:
            _log.info("no plot %s: %s", name, error)
            continue
        files.append(folder / f"{name}.html")
        figure.write_html(files[-1], include_plotlyjs=True)
    return files
