"""The targets' figure shows what the one-vs-rest loss learns from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from torch.nn import functional as F

from heartseg.datasets.camus import Camus
from heartseg.report.colours import COLOURS
from heartseg.report.figures import FigureCanvasAgg
from heartseg.report.targets import target_panels
from heartseg.training.losses import one_vs_rest_bce
from tests.metrics.shapes import FINE, UNEQUAL, heart


def pixels(axes) -> np.ndarray:
    (shown,) = axes.get_images()
    return np.asarray(shown.get_array())


def test_image_label_map_and_a_mask_per_label():
    labels = heart(84, 22)
    image = np.random.default_rng(0).integers(0, 256, labels.shape, dtype=np.uint8)
    figure = target_panels(image, {"reference": labels}, "camus", "a case", FINE)
    first, second, *targets = figure.axes
    assert [axes.get_title() for axes in figure.axes] == [
        *("image", "reference: label map", "background"),
        *("LV endocardium (cavity)", "LV epicardium (myocardium)", "left atrium"),
    ]
    assert (pixels(first) == image).all()
    assert (pixels(second) == labels).all()
    masks = np.stack([pixels(axes) for axes in targets])
    assert (masks == F.one_hot(torch.from_numpy(labels).long(), 4).movedim(-1, 0).numpy()).all()
    assert (masks.sum(0) == 1).all()  # each pixel belongs to one label
    # A network whose sigmoids say just this has no loss.
    logits = torch.from_numpy(np.where(masks, 50.0, -50.0))[None]
    assert one_vs_rest_bce(logits, torch.from_numpy(labels).long()[None], None) < 1e-9
    assert figure.get_suptitle() == "a case"


def test_the_label_map_has_the_colours_of_the_contours():
    labels = np.arange(4, dtype=np.uint8).reshape(2, 2)
    figure = target_panels(labels, {"reference": labels}, "camus", "", FINE)
    (shown,) = figure.axes[1].get_images()
    colours = shown.cmap(shown.norm(labels))[..., :3].reshape(4, 3)
    for label in (Camus.LV, Camus.MYO, Camus.LA):
        assert colours[label] == pytest.approx(to_rgb(COLOURS[label.name]), abs=0.01)
    assert colours[Camus.BACKGROUND] == pytest.approx((0, 0, 0))


def test_a_row_per_label_map_in_true_proportion_and_mm():
    labels = heart(84, 22, spacing=UNEQUAL)
    maps = {"reference": labels, "prediction": np.zeros_like(labels)}
    figure = target_panels(labels, maps, "camus", "", UNEQUAL)
    assert len(figure.axes) == 12
    assert figure.axes[7].get_title() == "prediction: label map"
    assert (pixels(figure.axes[8]) == 1).all()  # all background
    FigureCanvasAgg(figure).draw()
    for axes in figure.axes:
        box = axes.get_window_extent()
        height, width = (n * step for n, step in zip(labels.shape, UNEQUAL, strict=True))
        assert box.height / box.width == pytest.approx(height / width, rel=0.01)
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("mm", "mm")


def test_mmode_has_two_targets():
    window = np.eye(8, dtype=np.uint8)
    figure = target_panels(window, {"reference": window}, "mmode", "", (0.1, 0.001))
    assert [axes.get_title() for axes in figure.axes][2:] == [
        *("background", "LV endocardium (cavity)"),
    ]
    assert figure.axes[0].get_xlabel() == "time (s)"
