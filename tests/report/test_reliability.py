"""Figures on calibration and uncertainty show what was counted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from heartseg.metrics.calibration import BINS, Calibration
from heartseg.report.reliability import (
    reliability_diagram,
    uncertainty_panel,
    uncertainty_scatter,
)


def test_points_are_the_bins_that_have_enough_pixels() -> None:
    found = Calibration("mmode")
    curve = found.curves["LV"]
    curve.add(np.full(100, 0.9), np.arange(100) < 60)
    curve.add(np.full(10, 0.3), np.zeros(10, bool))  # too few for a point, counted all the same
    figure = reliability_diagram(found, "test")
    curves, pixels = figure.axes
    points = {line.get_label(): line.get_xydata() for line in curves.get_lines()}
    (label,) = [name for name in points if str(name).startswith("LV")]
    assert np.asarray(points[label]) == pytest.approx(np.array([[0.9, 0.6]]))
    assert label == "LV: 0.300"
    steps = {line.get_color(): line.get_ydata() for line in pixels.get_lines()}
    assert sum(np.asarray(steps["#E69F00"])[:BINS]) == 110
    assert "test split" in curves.get_title()


def test_scatter_tells_the_rank_correlation() -> None:
    pairs = pd.DataFrame({"uncertainty": [0.1, 0.2, 0.3], "dice": [0.9, 0.8, 0.1]})
    (axes,) = uncertainty_scatter(pairs).axes
    assert axes.get_title() == "Spearman's rank correlation −1.00, 3 cases"
    assert axes.collections[0].get_offsets().data.tolist() == pairs.to_numpy().tolist()
    (axes,) = uncertainty_scatter(pairs.assign(dice=1.0)).axes
    assert "undefined" in axes.get_title()


def test_panel_shows_the_entropy_in_the_images_own_proportions() -> None:
    entropy = np.random.default_rng(0).random((20, 30)).astype(np.float32)
    labels = np.zeros((20, 30), np.uint8)
    labels[5:15, 5:15] = 1
    image = np.full((20, 30), 90, np.uint8)
    figure = uncertainty_panel(image, labels, entropy, "camus", "case", (0.5, 0.25))
    first, second, *_ = figure.axes
    drawn = second.images[-1]
    assert np.asarray(drawn.get_array()).tolist() == entropy.tolist()
    assert drawn.get_clim() == (0, 1)
    assert drawn.get_extent() == first.images[0].get_extent() == [0, 7.5, 10, 0]
