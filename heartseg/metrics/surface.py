"""Distances between the contours of two masks, in mm, by MONAI's functions.

A contour is the mask's pixels that have a 4-neighbour outside of it; distances run between
pixel centres. Never NaN: a structure absent from both masks gives 0; absent from one of them
only, it gives the worst value that the image allows, its diagonal.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch

from heartseg.metrics import Spacing
from heartseg.metrics.overlap import check_masks

# MONAI 1.5 and later warn about a call of their own.
warnings.filterwarnings("ignore", r"(?s).*always_return_as_numpy", FutureWarning)


def hd95_mm(predicted: np.ndarray, reference: np.ndarray, spacing: Spacing) -> float:
    """95th-percentile Hausdorff distance of two boolean (H, W) masks in mm.

    The larger of the two directed 95th percentiles (Huttenlocher et al., IEEE TPAMI 15(9),
    1993). `spacing` is (row, column) in mm.

    Raises:
        ValueError: the masks are not boolean or differ in shape.
    """
    from monai.metrics import compute_hausdorff_distance  # takes seconds: not for who only trains

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
    """Average symmetric surface distance of two boolean (H, W) masks in mm.

    The mean over the pixels of both contours of the distance to the other one (Heimann et
    al., IEEE TMI 28(8), 2009). `spacing` is (row, column) in mm.

    Raises:
        ValueError: the masks are not boolean or differ in shape.
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
    """Length of an (H, W) image's diagonal in mm."""
    return float(np.hypot(shape[0] * spacing[0], shape[1] * spacing[1]))


def _without_contour(
    predicted: np.ndarray, reference: np.ndarray, spacing: Spacing
) -> float | None:
    """The agreed value where a mask is empty; None where both have a contour."""
    check_masks(predicted, reference)
    present = bool(predicted.any()), bool(reference.any())
    if all(present):
        return None
    return diagonal_mm(predicted.shape, spacing) if any(present) else 0.0


def _cropped(predicted: np.ndarray, reference: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Both masks as (1, 1, h, w), cut to the bounding box of their union for speed.

    A margin of one pixel keeps every contour pixel's neighbours; at the image's own edge
    there is none to keep, and MONAI counts what lies outside as background there too.
    """
    union = predicted | reference
    rows, columns = np.flatnonzero(union.any(1)), np.flatnonzero(union.any(0))
    box = tuple(slice(max(int(at[0]) - 1, 0), int(at[-1]) + 2) for at in (rows, columns))
    first, second = (torch.from_numpy(mask[box])[None, None] for mask in (predicted, reference))
    return first, second
