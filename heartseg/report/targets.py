"""The figure of training targets: the mask of each label for networks with a sigmoid per label."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from heartseg.datasets import DATASETS
from heartseg.report.figures import COLOURS

TITLES = {
    "BACKGROUND": "background",
    "LV": "LV endocardium (cavity)",
    "MYO": "LV epicardium (myocardium)",
    "LA": "left atrium",
}
LABEL_COLOURS = {"BACKGROUND": "#000000"} | COLOURS


def target_panels(
    image: np.ndarray,
    label_maps: Mapping[str, np.ndarray],
    dataset: str,
    title: str,
    spacing: tuple[float, float],
) -> Figure:
    """Draw a row per label map: the image, the label map, and the mask of each label.

    Args:
        image: uint8 (H, W).
        label_maps: Label maps (H, W) by name, such as "reference" and "prediction".
        dataset: "camus" or "mmode".
        title: Title of the figure.
        spacing: (row, column) in mm, for M-mode in mm and s. CAMUS is drawn in true proportion,
            M-mode with square pixels.
    """
    names = [label.name for label in DATASETS[dataset].labels]
    colours = ListedColormap([LABEL_COLOURS[name] for name in names])
    height, width = image.shape
    units = DATASETS[dataset].axes
    extent = (0, width * spacing[1], height * spacing[0], 0)
    aspect = 1.0 if units[0] == units[1] else spacing[1] / spacing[0]
    shape = aspect * extent[2] / extent[1]
    columns = 2 + len(names)
    figure = Figure(
        figsize=(2.2 * columns, (2.0 * shape + 0.6) * len(label_maps) + 0.4),
        dpi=100,
        layout="constrained",
    )
    figure.suptitle(title, fontsize=10)
    grid = figure.subplots(len(label_maps), columns, squeeze=False)
    for axes_row, (of, labels) in zip(grid, label_maps.items(), strict=True):
        axes_row[0].imshow(image, cmap="gray", vmin=0, vmax=255, extent=extent)
        axes_row[0].set_title("image", fontsize=8)
        axes_row[1].imshow(
            labels, cmap=colours, vmin=-0.5, vmax=len(names) - 0.5, extent=extent,
            interpolation="nearest",
        )  # fmt: skip
        axes_row[1].set_title(f"{of}: label map", fontsize=8)
        for axes, label in zip(axes_row[2:], DATASETS[dataset].labels, strict=True):
            mask = labels == label.value
            axes.imshow(mask, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest")
            axes.set_title(TITLES[label.name], fontsize=8)
        for axes in axes_row:
            axes.set_aspect(aspect)
            axes.tick_params(labelsize=6)
            axes.set_xlabel(units[1], fontsize=7)
            axes.set_ylabel(units[0], fontsize=7)
    return figure
