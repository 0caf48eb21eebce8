"""Tests of the segmentation of strips by overlapping windows."""

from __future__ import annotations

import numpy as np
import pytest

from heartseg.models.sliding_window import predict_strip
from tests.metrics.shapes import strip


def threshold(windows: np.ndarray) -> np.ndarray:
    return (windows[:, 0] > 100).astype(np.uint8)


def picture(columns: int) -> np.ndarray:
    return np.where(strip(columns), 200, 20).astype(np.uint8)


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75, 0.9])
@pytest.mark.parametrize("columns", [1, 2, 37, 199, 200, 201, 1003])
def test_strips_of_any_length(columns: int, overlap: float) -> None:
    image = picture(columns)
    for width in (200, 64):
        np.testing.assert_array_equal(predict_strip(threshold, image, width, overlap), image > 100)


def test_shape_of_the_windows() -> None:
    shapes = set()

    def watch(windows: np.ndarray) -> np.ndarray:
        shapes.add(windows.shape[1:])
        assert windows.dtype == np.uint8
        return threshold(windows)

    predict_strip(watch, picture(777), 150, 0.75)
    assert shapes == {(1, 200, 150)}


def test_errors_at_the_ends_of_windows_leave_no_seam() -> None:
    """The network does not find the heart at both ends of its window."""

    def blind_at_its_ends(windows: np.ndarray) -> np.ndarray:
        labels = threshold(windows)
        labels[:, :, :30] = labels[:, :, -30:] = 0
        return labels

    image = picture(1000)
    found = predict_strip(blind_at_its_ends, image, 200, 0.75)
    np.testing.assert_array_equal(found, image > 100)


def test_one_bad_window_is_outvoted() -> None:
    calls = 0

    def one_blank(windows: np.ndarray) -> np.ndarray:
        nonlocal calls
        labels = threshold(windows)
        if calls == 0:
            labels[5] = 0
        calls += 1
        return labels

    image = picture(1000)
    np.testing.assert_array_equal(predict_strip(one_blank, image, 200, 0.75), image > 100)
