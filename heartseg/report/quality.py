"""The figures of a quality model's evaluation: scores, ROC curve and examples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from heartseg.data.prepared import decode_png
from heartseg.data.privacy import CaseNames
from heartseg.metrics.quality import THRESHOLD, area_under_roc

COLOURS = {"good": "#009E73", "bad": "#D55E00"}
EXAMPLES = 6  # per label


def quality_figures(
    frames: pd.DataFrame, windows: pd.DataFrame, names: CaseNames
) -> dict[str, Figure]:
    """Draw the scores with their ROC curve, and examples.

    Args:
        frames: Rows of the prepared dataset.
        windows: A row per window with case_id, quality ("good" or "bad") and score (0 to 1).
        names: Conversion of names of windows into the names that may be shown.

    Returns:
        Figures by file name without suffix.
    """
    images = frames.set_index("case_id")["image"]
    return {
        "scores": score_figure(windows),
        "examples": example_figure(windows, lambda case_id: decode_png(images[case_id]), names),
    }


def score_figure(windows: pd.DataFrame) -> Figure:
    """Draw a histogram of the scores by label, and the ROC curve with the threshold's point.

    Args:
        windows: A row per window with quality ("good" or "bad") and score (0 to 1).
    """
    figure = Figure(figsize=(9.5, 4), dpi=100, layout="constrained")
    histogram, curve = figure.subplots(1, 2)
    bad = windows["quality"].eq("bad").to_numpy()
    scores = windows["score"].to_numpy()
    edges = np.linspace(0, 1, 21)
    for label, chosen in (("good", ~bad), ("bad", bad)):
        name = f"{label} ({chosen.sum()} windows)"
        histogram.hist(scores[chosen], edges, color=COLOURS[label], alpha=0.6, label=name)
    histogram.axvline(THRESHOLD, color="black", linestyle="--", linewidth=1)
    histogram.set_xlabel("score (probability of bad, 0 to 1)")
    histogram.set_ylabel("windows")
    histogram.legend(fontsize=8)
    if bad.any() and not bad.all():
        limits = np.concatenate([[np.inf], np.unique(scores)[::-1]])
        found = [(scores[bad] >= limit).mean() for limit in limits]
        false = [(scores[~bad] >= limit).mean() for limit in limits]
        curve.plot(false, found, color="#0072B2", drawstyle="steps-post")
        at = (scores[~bad] > THRESHOLD).mean(), (scores[bad] > THRESHOLD).mean()
        curve.plot(*at, "o", color="black", label=f"score {THRESHOLD:g}")
        curve.legend(fontsize=8, loc="lower right")
    curve.plot([0, 1], [0, 1], color="#999999", linestyle=":", linewidth=1)
    curve.set_title(f"area under the curve {area_under_roc(bad, scores):.3f}", fontsize=9)
    curve.set_xlabel("good windows called bad (1 − specificity)")
    curve.set_ylabel("bad windows found (sensitivity)")
    curve.set_aspect("equal")
    return figure


def example_figure(
    windows: pd.DataFrame, image_of: Callable[[str], np.ndarray], names: CaseNames
) -> Figure:
    """Draw windows of each label from the lowest to the highest score.

    Args:
        windows: As in `score_figure`, with case_id.
        image_of: Function from a case_id to its image, uint8 (H, W).
        names: Conversion of names of windows into the names that may be shown.
    """
    figure = Figure(figsize=(2.0 * EXAMPLES, 5.2), dpi=100, layout="constrained")
    grid = figure.subplots(2, EXAMPLES, squeeze=False)
    for axes_row, label in zip(grid, COLOURS, strict=True):
        ranked = windows[windows["quality"] == label].sort_values("score", kind="stable")
        count = min(EXAMPLES, len(ranked))
        places = np.linspace(0, len(ranked) - 1, count).round().astype(int)
        for axes in axes_row:
            axes.axis("off")
        for axes, place in zip(axes_row, places, strict=False):
            row = ranked.iloc[place]
            wrong = (row["score"] > THRESHOLD) != (label == "bad")
            axes.imshow(image_of(row["case_id"]), cmap="gray", vmin=0, vmax=255, aspect="auto")
            axes.set_title(
                f"{names.shown(row['case_id'])}\n{label}, score {row['score']:.2f}",
                fontsize=7,
                color=COLOURS["bad"] if wrong else "black",
            )
    figure.suptitle("labels good (top) and bad (bottom), by score; errors in red", fontsize=9)
    return figure
