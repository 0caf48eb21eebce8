"""The figure of a sequence: area and volume of the left ventricle over time."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from heartseg.datasets.camus import CAMUS
from heartseg.metrics.sequence import summarise_curves
from heartseg.report.colours import COLOURS

PANELS = {"lv_area_cm2": "LV area (cm²)", "lv_volume_ml": "LV volume (mL)"}
MARKERS = {"ED": "v", "ES": "^"}


def curve_figure(curves: pd.DataFrame, title: str) -> Figure:
    """Draw panels of area, volume, and (if there is a reference) Dice of a sequence.

    The x-axis is time, or the frame number if the frame rate is not known. ED and ES, the largest
    and the smallest volume, are marked in each curve.

    Args:
        curves: Rows of `heartseg.metrics.sequence.lv_curves`.
        title: Name of the sequence.
    """
    dice = {name: f"dice_{name}" for name in CAMUS.structures if f"dice_{name}" in curves}
    timed = curves["time_s"].notna().all()
    x = curves["time_s" if timed else "frame"]
    figure = Figure(figsize=(3.6 * (2 + bool(dice)), 3.4), dpi=100, layout="constrained")
    panels = figure.subplots(1, 2 + bool(dice))
    for axes, (column, label) in zip(panels, PANELS.items(), strict=False):
        if dice:
            _curve(axes, x, curves, column, "_reference", "reference")
        _curve(axes, x, curves, column, "", "prediction")
        axes.set_ylabel(label)
        axes.set_ylim(0, 1.08 * axes.dataLim.ymax)  # room for the marks
    if dice:
        for name, column in dice.items():
            panels[2].plot(x, curves[column], color=COLOURS[name], label=name, marker=".")
        panels[2].set_ylim(min(0.5, curves[list(dice.values())].min().min()), 1)
        panels[2].set_ylabel("Dice (0 to 1)")
    for axes in panels:
        axes.set_xlabel("time (s)" if timed else "frame")
        if not timed:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=8, loc="best" if axes is panels[-1] and dice else "lower left")
    figure.suptitle(f"{title}\n{_summary(curves)}", fontsize=9)
    return figure


def _curve(
    axes: Axes, x: pd.Series, curves: pd.DataFrame, column: str, ending: str, name: str
) -> None:
    """Draw a curve; the reference is dashed with hollow marks, so that it stays visible."""
    colour, style, size = ("black", "--", 9) if ending else (COLOURS["LV"], "-", 6)
    y = curves[column + ending]
    axes.plot(x, y, style, color=colour, label=name, linewidth=1.2)
    for phase, marker in MARKERS.items():
        at = curves[f"phase{ending}"] == phase
        fill = "none" if ending else colour
        label = f"{phase} of {name}"
        axes.plot(x[at], y[at], marker, color=colour, mfc=fill, markersize=size, label=label)


def _summary(curves: pd.DataFrame) -> str:
    found = summarise_curves(curves)
    parts = []
    for ending, name in (("", "prediction"), ("_reference", "reference")):
        if f"ef_percent{ending}" in found:
            edv, esv, ef = (found[f"{key}{ending}"] for key in ("edv_ml", "esv_ml", "ef_percent"))
            parts.append(f"{name}: EDV {edv:.0f} mL, ESV {esv:.0f} mL, EF {ef:.0f} %")
    missing = f"; {found['not_measured']} frame(s) not measured" if found["not_measured"] else ""
    return "; ".join(parts) + " (one view, area-length)" + missing
