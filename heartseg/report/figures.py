"""Figures of evaluations and trainings, as matplotlib Figures without global state.

Equal input gives equal bytes, so that DVC sees no change if there is none.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike
from PIL import Image

from heartseg.datasets import DATASETS, structure_mask
from heartseg.metrics.agreement import agreement
from heartseg.report.colours import BLACK, BLUE, COLOURS, GREEN, ORANGE, PURPLE, VERMILION

# Matplotlib's cache of fonts belongs to the user, and may name fonts of another environment. It
# says so in a line per font, although the figure looks the same.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)

METRIC_TEXTS = {"dice": "Dice (0 to 1)", "hd95_mm": "HD95 (mm)", "msd_mm": "MSD (mm)"}
QUALITY_MARKS = ((BLUE, "o"), (ORANGE, "s"), (PURPLE, "^"), (BLACK, "D"))


def save(figure: Figure, path: Path | str) -> None:
    """Write a figure as a PNG of at most 256 colours without a date, and create its folders."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    picture(figure).save(path, format="PNG", optimize=True)


def picture(figure: Figure) -> Image.Image:
    """Render a figure as an image of at most 256 colours."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    return pixels.quantize(256, kmeans=100, dither=Image.Dither.NONE)


# --- overlays -----------------------------------------------------------------------------


def overlay_panel(
    image: np.ndarray,
    reference: np.ndarray | None,
    prediction: np.ndarray,
    dataset: str,
    title: str,
    spacing: tuple[float, float] | None = None,
) -> Figure:
    """Draw one case: image, reference contours, prediction contours; see `overlay_grid`."""
    spacings = None if spacing is None else [spacing]
    return overlay_grid([image], [reference], [prediction], dataset, [title], spacings)


def overlay_grid(
    images: Sequence[np.ndarray],
    references: Sequence[np.ndarray | None] | None,
    predictions: Sequence[np.ndarray],
    dataset: str,
    titles: Sequence[str],
    spacings: Sequence[tuple[float, float]] | None = None,
) -> Figure:
    """Draw a row per case: image, reference contours, prediction contours.

    Args:
        images: Images uint8 (H, W), which may differ in size.
        references: Label maps (H, W); None for a case without a reference, or for all cases.
        predictions: Label maps (H, W).
        dataset: "camus" or "mmode".
        titles: Title of each case.
        spacings: (row, column) of each case, in mm, or in mm and s for M-mode. Without them, the
            axes count pixels. CAMUS is drawn in true proportion, M-mode with square pixels.
    """
    if references is None:
        references = [None] * len(images)
    columns = ["image", "reference", "prediction"]
    if all(reference is None for reference in references):
        columns.remove("reference")
    shapes = [image.shape for image in images]
    if spacings is None:
        units, steps = ("px", "px"), [(1.0, 1.0)] * len(images)
    else:
        units, steps = DATASETS[dataset].axes, list(spacings)
    aspects = [
        step_x / step_y if units[0] != units[1] else 1.0 for step_y, step_x in steps
    ]  # display length of a unit along the rows over one along the columns
    heights = [
        aspect * (h * step_y) / (w * step_x)
        for aspect, (h, w), (step_y, step_x) in zip(aspects, shapes, steps, strict=True)
    ]
    cell = 2.2  # inches
    figure = new_figure(
        cell * len(columns) + 0.6, cell * float(sum(heights)) + 0.5 * len(images) + 0.5
    )
    grid = figure.subplots(len(images), len(columns), squeeze=False, height_ratios=heights)
    for row, axes_row in enumerate(grid):
        image, (step_y, step_x) = images[row], steps[row]
        height, width = shapes[row]
        labels = {"image": None, "reference": references[row], "prediction": predictions[row]}
        for axes, column in zip(axes_row, columns, strict=True):
            axes.imshow(
                image, cmap="gray", vmin=0, vmax=255, extent=(0, width * step_x, height * step_y, 0)
            )
            axes.set_aspect(aspects[row])
            # To the right from the axes' left end: long titles stay within the figure.
            title = f"{titles[row]}\n{column}" if column == "image" else column
            axes.set_title(title, fontsize=8, loc="left")
            axes.tick_params(labelsize=7)
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.set_xlabel(units[1], fontsize=8)
            axes.set_ylabel(units[0], fontsize=8)
            label_map = labels[column]
            if label_map is not None:
                _draw_contours(axes, label_map, dataset, (step_y, step_x))
    lines = [Line2D([], [], color=COLOURS[name], label=name) for name in DATASETS[dataset].contours]
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), fontsize=8)
    return figure


def _draw_contours(axes: Axes, labels: np.ndarray, dataset: str, step: tuple[float, float]) -> None:
    """Draw the outline of each structure along the edges of its pixels."""
    height, width = labels.shape
    y = (np.arange(-1, height + 1) + 0.5) * step[0]
    x = (np.arange(-1, width + 1) + 0.5) * step[1]
    for structure in DATASETS[dataset].contours:
        mask = np.pad(structure_mask(labels, dataset, structure), 1)  # closed at the border too
        if mask.any():
            lines = axes.contour(x, y, mask, levels=[0.5], colors=COLOURS[structure], linewidths=1)
            lines.set_label(structure)


# --- statistics ---------------------------------------------------------------------------


def box_plots(cases: pd.DataFrame, dataset: str) -> Figure:
    """Draw the distribution of each metric over the cases, by structure.

    Args:
        cases: Rows per case and structure, with columns structure, dice and, for CAMUS, hd95_mm
            and msd_mm.
        dataset: "camus" or "mmode".
    """
    metrics = {name: METRIC_TEXTS[name] for name in DATASETS[dataset].case_metrics}
    names = list(DATASETS[dataset].structures)
    figure = new_figure(0.8 + 2.6 * len(metrics), 3.2)
    for axes, (metric, label) in zip(
        figure.subplots(1, len(metrics), squeeze=False)[0], metrics.items(), strict=True
    ):
        groups = [cases.loc[cases["structure"] == name, metric] for name in names]
        missing = sum(int(group.isna().sum()) for group in groups)
        values = sum(len(group) for group in groups) - missing
        boxes = axes.boxplot(
            [group.dropna().to_numpy(dtype=float) for group in groups],
            tick_labels=names,
            patch_artist=True,
            widths=0.6,
            flierprops={"markersize": 3},
            medianprops={"color": "black"},
        )
        for box, name in zip(boxes["boxes"], names, strict=True):
            box.set_facecolor(COLOURS[name])
        axes.set_xlabel("structure")
        axes.set_ylabel(label)
        axes.set_title(_counted({"n": values, "missing": missing}, "values"), fontsize=9)
    return figure


def bland_altman(
    reference: ArrayLike,
    measured: ArrayLike,
    quantity: str,
    unit: str,
    qualities: Sequence[str] | None = None,
) -> Figure:
    """Draw differences over means, with bias and 95 % limits of agreement (bias ± 1.96 SD, n - 1).

    Bland and Altman, Lancet 327(8476), 307-310, 1986. Pairs with a NaN are left out and counted.
    Points are coloured by `qualities`, the image quality of each pair ("" if unknown), if given.
    """
    first, second = np.asarray(reference, dtype=float), np.asarray(measured, dtype=float)
    found = agreement(first, second)
    figure = new_figure(5.6, 3.6)
    axes = figure.subplots()
    words = np.full(len(first), "") if qualities is None else np.asarray(qualities, dtype=str)
    for word, (colour, mark) in zip(sorted(set(words)), cycle(QUALITY_MARKS), strict=False):
        one, other = first[words == word], second[words == word]
        label = f"{word} ({np.isfinite(one + other).sum()})" if word else None
        axes.scatter(
            (one + other) / 2, other - one, s=14, color=colour, marker=mark, alpha=0.7, label=label
        )
    if any(words):
        figure.legend(title="image quality", loc="outside lower center", ncols=4, fontsize=8)
    _level(axes, found["bias"], "bias", "solid")
    _level(axes, found["loa_high"], "+1.96 SD", "dashed")
    _level(axes, found["loa_low"], "−1.96 SD", "dashed")
    axes.margins(y=0.15)
    axes.set_xlabel(f"mean of reference and measured ({unit})")
    axes.set_ylabel(f"measured − reference ({'points' if unit == '%' else unit})")
    axes.set_title(f"{quantity}: {_counted(found, 'pairs')}", fontsize=10)
    return figure


def agreement_scatter(
    reference: ArrayLike, measured: ArrayLike, quantity: str, unit: str
) -> Figure:
    """Draw measured over reference values, with the identity line and Pearson's r.

    Pairs with a NaN are left out and counted.
    """
    found = agreement(reference, measured)
    figure = new_figure(4.0, 4.2)
    axes = figure.subplots()
    axes.scatter(reference, measured, s=14, color=BLUE, alpha=0.7)
    if found["n"]:  # through the middle of the points, so that the axes need not show 0
        middle = float(np.nanmean(np.asarray(reference, dtype=float)))
        axes.axline((middle, middle), slope=1, color="black", linewidth=1, label="identity")
        axes.legend(loc="lower right", fontsize=8)
    axes.set_aspect("equal", adjustable="datalim")
    r = "undefined" if np.isnan(found["r"]) else f"{found['r']:.3f}"
    axes.set_xlabel(f"{quantity}, reference ({unit})")
    axes.set_ylabel(f"{quantity}, measured ({unit})")
    axes.set_title(f"{quantity}: r = {r}, {_counted(found, 'pairs')}", fontsize=10)
    return figure


def training_curves(history: pd.DataFrame) -> Figure:
    """Draw loss, Dice of each structure and learning rate over the epochs.

    Args:
        history: A row per epoch with columns epoch, train_loss, val_loss, dice_mean,
            dice_<structure>... and learning_rate. Epochs without a value are left out of a line.
            For a classifier, the area under the ROC curve (auc) replaces Dice.
    """
    figure = new_figure(10.0, 3.2)
    losses, scores, rates = figure.subplots(1, 3)
    _curve(losses, history, "train_loss", "train", BLACK)
    _curve(losses, history, "val_loss", "validation", VERMILION, dashes="--")
    if "auc" in history:
        _curve(scores, history, "auc", "AUC", BLUE)
    else:
        for column in [name for name in history.columns if name.startswith("dice_")]:
            structure = column.removeprefix("dice_").upper()
            if structure != "MEAN":
                _curve(scores, history, column, structure, COLOURS[structure])
        if len(scores.lines) > 1:
            _curve(scores, history, "dice_mean", "mean", BLACK, dashes="--")
    _curve(rates, history, "learning_rate", "learning rate", GREEN)
    scores.set_ylim(-0.02, 1.02)
    for axes, label in (
        (losses, "loss"),
        (scores, f"validation {'AUC' if 'auc' in history else 'Dice'} (0 to 1)"),
    ):
        axes.set_ylabel(label)
        axes.legend(fontsize=8)
    rates.set_ylabel("learning rate of the epoch's last step")
    for axes in (losses, scores, rates):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure; width and height are in inches."""
    return Figure(figsize=(width, height), dpi=100, layout="constrained")


def _counted(found: dict[str, float], what: str) -> str:
    """Return the number of pairs or cases, and of those left out, from n and missing in `found`."""
    left_out = f", {found['missing']} missing left out" if found["missing"] else ""
    return f"{found['n']} {what}{left_out}"


def _level(axes: Axes, value: float, name: str, style: str) -> None:
    """Draw a horizontal line with its value, unless there are too few pairs to define it."""
    if np.isnan(value):
        return
    axes.axhline(value, color="black", linestyle=style, linewidth=1)
    axes.annotate(
        f"{name}\n{value:+.2f}".replace("-", "−"),
        (1.0, value),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),  # beside the axes, where no point lies
        textcoords="offset points",
        ha="left",
        va="center",
        annotation_clip=False,
        fontsize=8,
    )


def _curve(
    axes: Axes, history: pd.DataFrame, column: str, label: str, colour: str, dashes: str = "-"
) -> None:
    known = history[["epoch", column]].dropna()
    axes.plot(
        known["epoch"],
        known[column],
        dashes,
        label=label,
        color=colour,
        marker="o",
        markersize=2.5,
        linewidth=1.3,
    )
