"""Distances between the contours of two masks in mm, computed by MONAI.

A contour consists of the pixels of a mask with a 4-neighbour outside of it. Distances are between
pixel centres. The result is never NaN: it is 0 if both masks are empty, and the diagonal of the
image, the largest possible distance, if one of them is.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch

from heartseg.metrics import Spacing
from heartseg.metrics.overlap import check_masks

# MONAI 1.5 and later warn about one of their own calls.
warnings.filterwarnings("ignore", r"(?s).*always_return_as_numpy", FutureWarning)


def hd95_mm(predicted: np.ndarray, reference: np.ndarray, spacing: Spacing) -> float:
    """Compute the 95th percentile of the Hausdorff distance in mm.

    It is the larger of the two directed 95th percentiles (Huttenlocher et al., IEEE TPAMI 15(9),
    1993).

    Args:
        predicted: Mask, bool (H, W).
        reference: Mask, bool (H, W).
        spacing: (row, column) in mm.

    Raises:
        ValueError: The masks are not boolean or differ in shape.
    """
    from monai.metrics import compute_hausdorff_distance  # imported here because it takes seconds

    value = _without_contour(predicted, reference, spacing)
    if value is not None:
        return value
    pair = _cropped(predicted, reference)
    return float(
        compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=spacing)
    )


def mean_surface_distance_mm(
    predicted: np.ndarray, reference: np.ndarray, spacing: Spacing
) -> float:
    """Compute the average symmetric surface distance in mm.

    It is the mean, over the pixels of both contours, of the distance to the other contour (Heimann
    et al., IEEE TMI 28(8), 2009).

    Args:
        predicted: Mask, bool (H, W).
        reference: Mask, bool (H, W).
        spacing: (row, column) in mm.

    Raises:
        ValueError: The masks are not boolean or differ in shape.
    """
    from monai.metrics import compute_average_surface_distance

    value = _without_contour(predicted, reference, spacing)
    if value is not None:
        return value
    pair = _cropped(predicted, reference)
    return float(
        compute_average_surface_distance(
            *pair, include_background=True, symmetric=True, spacing=spacing
        )
    )


def diagonal_mm(shape: tuple[int, ...], spacing: Spacing) -> float:
    """Return the length of the diagonal of an (H, W) image in mm."""
    return float(np.hypot(shape[0] * spacing[0], shape[1] * spacing[1]))


def _without_contour(
    predicted: np.ndarray, reference: np.ndarray, spacing: Spacing
) -> float | None:
    """Return the distance if a mask is empty; None if both masks have a contour.

    Raises:
        ValueError: The masks are not boolean or differ in shape.
    """
    check_masks(predicted, reference)
    present = bool(predicted.any()), bool(reference.any())
    if all(present):
        return None
    return diagonal_mm(predicted.shape, spacing) if any(present) else 0.0


def _cropped(predicted: np.ndarray, reference: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Crop both masks to the bounding box of their union, for speed, as (1, 1, h, w).

    A margin of one pixel keeps the neighbours of every contour pixel. At the edge of the image
    there is no margin, because MONAI treats pixels outside as background.
    """
    union = predicted | reference
    rows, columns = np.flatnonzero(union.any(1)), np.flatnonzero(union.any(0))
    box = tuple(slice(max(int(at[0]) - 1, 0), int(at[-1]) + 2) for at in (rows, columns))
    first, second = (torch.from_numpy(mask[box])[None, None] for mask in (predicted, reference))
    return first, second
