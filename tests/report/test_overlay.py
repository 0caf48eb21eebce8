"""Contours lie where the structures are, in true proportion."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageColor

from heartseg.report.colours import COLOURS
from heartseg.report.overlay import ANIMATED_SIDE, LONG_SIDE, draw, save_overlay


def labels(height: int = 60, width: int = 90) -> np.ndarray:
    found = np.zeros((height, width), np.uint8)
    found[10:40, 20:50] = 2
    found[15:35, 25:45] = 1
    found[41:50, 60:80] = 3
    return found


@pytest.mark.parametrize("spacing", [None, (1.0, 1.0), (2.0, 0.5)])
def test_each_contour_in_its_place_and_colour(spacing):
    found = labels()
    picture = draw(np.full(found.shape, 50, np.uint8), found, "camus", spacing, LONG_SIDE)

    row, column = spacing or (1.0, 1.0)
    assert max(picture.size) == LONG_SIDE
    assert picture.width / picture.height == pytest.approx(90 * column / (60 * row), rel=0.01)
    pixels = np.array(picture)[: picture.height - 24]  # without the names below
    edges = {"LV": (15, 35, 25, 45), "LVepi": (10, 40, 20, 50), "LA": (41, 50, 60, 80)}
    for name, (top, bottom, left, right) in edges.items():
        drawn = np.argwhere((pixels == ImageColor.getrgb(COLOURS[name])).all(-1))
        scale = np.array([picture.height / 60, picture.width / 90])
        np.testing.assert_allclose(drawn.min(0), (top, left) * scale, atol=2.5)
        np.testing.assert_allclose(drawn.max(0), (bottom, right) * scale, atol=2.5)


def test_a_sequence_becomes_an_animation(tmp_path):
    frames = np.full((5, 60, 90), 50, np.uint8)
    maps = np.stack([np.roll(labels(), shift, axis=1) for shift in (0, 3, 6)])

    save_overlay(frames, maps, [0, 2, 4], "camus", None, tmp_path / "a.b_c")

    assert [path.name for path in tmp_path.iterdir()] == ["a.b_c_overlay.gif"]
    with Image.open(tmp_path / "a.b_c_overlay.gif") as animation:
        assert animation.n_frames == 3
        assert max(animation.size) == ANIMATED_SIDE
        lefts = []
        for number in range(3):
            animation.seek(number)
            pixels = np.array(animation.convert("RGB"))[:-24]
            orange = (pixels == ImageColor.getrgb(COLOURS["LV"])).all(-1)
            lefts.append(np.argwhere(orange)[:, 1].min())
    np.testing.assert_allclose(np.diff(lefts), 3 * ANIMATED_SIDE / 90, atol=2)


def test_nothing_found_is_the_image_alone():
    image = np.random.default_rng(0).integers(0, 256, (60, 90), dtype=np.uint8)
    picture = draw(image, np.zeros_like(image), "mmode", None, 90)

    pixels = np.array(picture)
    assert (pixels[:36] == image[:36, :, None]).all()
