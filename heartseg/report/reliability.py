"""Figures of calibration and uncertainty."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from heartseg.metrics.calibration import ALL, BINS, Calibration
from heartseg.metrics.uncertainty import spearman
from heartseg.report.colours import BLACK, BLUE, COLOURS
from heartseg.report.figures import new_figure, overlay_grid

FEW = 50  # pixels; a bin with fewer has no frequency worth a point


def reliability_diagram(calibration: Calibration, split: str) -> Figure:
    """Draw observed frequency over predicted probability, and the number of pixels in each bin.

    After DeGroot and Fienberg, The Statistician 32, 1983, and Guo et al., ICML 2017, figure 1.
    A curve below the diagonal is overconfident. Bins with fewer than 50 pixels have no point.
    """
    figure = new_figure(4.6, 5.4)
    curves, pixels = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    curves.plot([0, 1], [0, 1], color="black", linewidth=1, linestyle="dashed")
    edges = np.arange(BINS) / BINS
    for name, found in calibration.curves.items():
        enough = found.counts >= FEW
        sums = found.probability_sums, found.true_counts
        predicted, observed = (part[enough] / found.counts[enough] for part in sums)
        label = "predicted label" if name == ALL else name
        colour = COLOURS.get(name, BLACK)
        curves.plot(
            predicted,
            observed,
            color=colour,
            marker="o",
            markersize=3,
            label=f"{label}: {found.ece():.3f}",
        )
        pixels.step(
            [*edges, 1], [*found.counts, found.counts[-1]], where="post", color=colour, linewidth=1
        )
    curves.legend(title="expected calibration\nerror (0 to 1)", fontsize=8, title_fontsize=8)
    curves.set_ylabel("observed frequency (0 to 1)")
    curves.set_title(f"calibration on the {split} split", fontsize=10)
    pixels.set_yscale("log")
    pixels.set_ylabel("pixels")
    pixels.set_xlabel("predicted probability (0 to 1)")
    return figure


def uncertainty_scatter(pairs: pd.DataFrame) -> Figure:
    """Draw mean Dice over uncertainty, with a point per case.

    Args:
        pairs: Pairs from `heartseg.evaluation.summary.uncertainty_and_dice`.
    """
    figure = new_figure(4.6, 3.6)
    axes = figure.subplots()
    axes.scatter(pairs["uncertainty"], pairs["dice"], s=14, color=BLUE, alpha=0.7)
    rank = spearman(pairs)
    known = "undefined" if np.isnan(rank) else f"{rank:.2f}".replace("-", "−")
    axes.set_xlabel("uncertainty of the case (0 to 1)")
    axes.set_ylabel("mean Dice (0 to 1)")
    axes.set_title(f"Spearman's rank correlation {known}, {len(pairs)} cases", fontsize=10)
    return figure


def uncertainty_panel(
    image: np.ndarray,
    labels: np.ndarray,
    entropy: np.ndarray,
    dataset: str,
    title: str,
    spacing: tuple[float, float] | None = None,
) -> Figure:
    """Draw an image with the predicted contours, and beside it the uncertainty of each pixel.

    Args:
        image: Image uint8 (H, W).
        labels: Predicted label map (H, W).
        entropy: Entropy (H, W) from `heartseg.metrics.uncertainty.normalised_entropy`.
        dataset: "camus" or "mmode".
        title: Title of the case.
        spacing: As in `heartseg.report.figures.overlay_grid`.
    """
    figure = overlay_grid(
        [image], None, [labels], dataset, [title], None if spacing is None else [spacing]
    )
    first, second = figure.axes
    shown = first.images[0]
    drawn = second.imshow(
        entropy, cmap="magma", vmin=0, vmax=1, extent=shown.get_extent(), aspect=first.get_aspect()
    )
    second.set_title("uncertainty", fontsize=8, loc="left")
    bar = figure.colorbar(drawn, ax=second, shrink=0.8)
    bar.set_label("normalised entropy (0 to 1)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure
