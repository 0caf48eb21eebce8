"""Tests of surface distances against values by hand and a brute-force computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from scipy import ndimage
from scipy.spatial.distance import cdist

from heartseg.metrics.surface import hd95_mm, mean_surface_distance_mm

# pytest puts its own filters over those of the module
pytestmark = pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")

Masks = tuple[np.ndarray, np.ndarray]


def square(row: int, column: int, side: int = 20, shape: tuple[int, int] = (60, 60)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[row : row + side, column : column + side] = True
    return mask


def blobs(seed: int, shape: tuple[int, int] = (70, 90)) -> Masks:
    """Return two irregular masks that partly touch the edge of the image."""
    noise = np.random.default_rng(seed).normal(size=(2, *shape))
    smooth = ndimage.gaussian_filter(noise, (0, 6, 6))
    first = smooth[0] > 0
    return first, (smooth[0] + 0.5 * smooth[1]) > 0.01


def brute_force(first: np.ndarray, second: np.ndarray, spacing: tuple[float, float]) -> tuple:
    """Compute HD95 and mean surface distance over all pairs of contour pixels."""
    points = [
        np.argwhere(mask & ~ndimage.binary_erosion(mask)) * spacing for mask in (first, second)
    ]
    distances = cdist(*points)
    there, back = distances.min(axis=1), distances.min(axis=0)
    hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
    return hd95, np.concatenate((there, back)).mean()


def test_shifted_square_with_anisotropic_spacing() -> None:
    # The shift is 3 columns of 0.2 mm. Of the 76 contour pixels of a square, the 20 of the outer
    # column are 0.6 mm away. In the top and bottom row, two pixels each are 0.4 and 0.2 mm away.
    # The inner column's 18 pixels are 0.6 mm away, except for those next to a corner, which are
    # 0.5 mm from the other row. All others are at distance 0.
    spacing = (0.5, 0.2)
    first, second = square(10, 10), square(10, 13)
    assert hd95_mm(first, second, spacing) == pytest.approx(0.6)
    mean = (20 * 0.6 + 2 * (0.4 + 0.2) + 16 * 0.6 + 2 * 0.5) / 76
    assert mean_surface_distance_mm(first, second, spacing) == pytest.approx(mean)
    turned = hd95_mm(first.T, second.T, (0.2, 0.5))  # the axes are in the right order
    assert turned == pytest.approx(0.6)
    assert hd95_mm(first, square(13, 10), spacing) == pytest.approx(1.5)


def test_concentric_circles() -> None:
    rows, columns = np.mgrid[:200, :200]
    radius = np.hypot(rows - 100, columns - 100) * 0.5  # mm
    small, large = radius < 30, radius < 40
    assert hd95_mm(small, large, (0.5, 0.5)) == pytest.approx(10, abs=0.5)
    assert mean_surface_distance_mm(small, large, (0.5, 0.5)) == pytest.approx(10, abs=0.25)


def test_equal_masks_have_distance_0() -> None:
    mask = square(0, 40)  # touches the image's edge
    assert hd95_mm(mask, mask, (1.0, 2.0)) == 0.0
    assert mean_surface_distance_mm(mask, mask, (1.0, 2.0)) == 0.0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.31, 0.77)])
def test_equals_brute_force(seed: int, spacing: tuple[float, float]) -> None:
    first, second = blobs(seed)
    hd95, mean = brute_force(first, second, spacing)
    assert hd95_mm(first, second, spacing) == pytest.approx(hd95, rel=1e-5)
    assert hd95_mm(second, first, spacing) == pytest.approx(hd95, rel=1e-5)
    assert mean_surface_distance_mm(first, second, spacing) == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize(
    "masks", [(square(10, 10), square(30, 38)), (square(0, 0), square(40, 40)), blobs(7)]
)
def test_cropping_changes_nothing(masks: Masks) -> None:
    spacing = (0.4, 0.3)
    whole = [torch.from_numpy(mask)[None, None] for mask in masks]
    options = {"include_background": True, "spacing": spacing}
    hd95 = compute_hausdorff_distance(*whole, percentile=95, **options)
    mean = compute_average_surface_distance(*whole, symmetric=True, **options)
    assert hd95_mm(*masks, spacing) == float(hd95)
    assert mean_surface_distance_mm(*masks, spacing) == float(mean)


def test_absent_structures_are_never_nan() -> None:
    there, absent = square(10, 10, shape=(30, 40)), np.zeros((30, 40), bool)
    for measure in (hd95_mm, mean_surface_distance_mm):
        assert measure(absent, there, (0.1, 0.1)) == pytest.approx(5.0)  # 3 mm by 4 mm
        assert measure(there, absent, (0.1, 0.1)) == pytest.approx(5.0)
        assert measure(absent, absent, (0.1, 0.1)) == 0.0


def test_label_maps_are_rejected() -> None:
    mask = square(10, 10)
    with pytest.raises(ValueError, match="boolean"):
        hd95_mm(mask.astype(np.uint8), mask, (1.0, 1.0))
    with pytest.raises(ValueError, match="equal in shape"):
        mean_surface_distance_mm(mask, mask[:50], (1.0, 1.0))
