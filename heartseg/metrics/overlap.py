"""Overlap of label maps: counts first, reduction after."""

from __future__ import annotations

import numpy as np
import torch


def confusion_counts(
    predicted: torch.Tensor, reference: torch.Tensor, n_labels: int
) -> torch.Tensor:
    """True positives, false positives and false negatives per case and label, in pixels.

    Counts add up: sum them over batches, ranks or cases, and divide last.

    Args:
        predicted: integer (or bool) label maps (N, H, W), values 0 .. n_labels - 1.
        reference: the same, of equal shape.
        n_labels: number of labels, background included.

    Returns:
        int64 (N, n_labels, 3), last axis (tp, fp, fn), on the device of `predicted`.

    Raises:
        ValueError: wrong number of axes, unequal shapes, or a label out of range.
        TypeError: the maps are not integer: logits and probabilities are no labels.
    """
    if n_labels < 2:
        raise ValueError(f"n_labels must count the background too, so at least 2; got {n_labels}")
    if predicted.ndim != 3 or predicted.shape != reference.shape:
        raise ValueError(
            "predicted and reference must both be (N, H, W); "
            f"got {tuple(predicted.shape)} and {tuple(reference.shape)}"
        )
    for name, labels in (("predicted", predicted), ("reference", reference)):
        if labels.is_floating_point() or labels.is_complex():
            raise TypeError(f"{name} must be an integer label map, got {labels.dtype}")
    n = len(predicted)
    predicted, reference = predicted.long().flatten(1), reference.long().flatten(1)
    for name, labels in (("predicted", predicted), ("reference", reference)):
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < n_labels:
            raise ValueError(f"{name} has labels outside 0 .. {n_labels - 1}")

    case = torch.arange(n, device=predicted.device)[:, None]
    cells = (case * n_labels + reference) * n_labels + predicted
    matrix = torch.bincount(cells.flatten(), minlength=n * n_labels**2)
    matrix = matrix.view(n, n_labels, n_labels)  # case, reference label, predicted label
    tp = matrix.diagonal(dim1=1, dim2=2)
    return torch.stack((tp, matrix.sum(1) - tp, matrix.sum(2) - tp), dim=2)


def dice_from_counts(counts: torch.Tensor) -> torch.Tensor:
    """Dice 2 tp / (2 tp + fp + fn) from counts (..., 3), as float64 (...).

    A structure absent from reference and prediction alike gives 1: there was nothing to find
    and nothing was falsely found, and a mean over cases stays defined (never NaN). Present in
    one of the two only, it gives 0.

    Raises:
        ValueError: the last axis is not (tp, fp, fn), or a count is negative.
    """
    if counts.ndim < 1 or counts.shape[-1] != 3:
        raise ValueError(f"counts must be (..., 3) for tp, fp, fn; got {tuple(counts.shape)}")
    if counts.numel() and int(counts.min()) < 0:
        raise ValueError("counts must not be negative")
    tp, fp, fn = counts.double().unbind(-1)
    size = 2 * tp + fp + fn
    return torch.where(size > 0, 2 * tp / size.clamp(min=1), torch.ones_like(tp))


def mask_dice(predicted: np.ndarray, reference: np.ndarray) -> float:
    """Dice of two boolean masks (H, W), with the rule of `dice_from_counts` for absent ones.

    For structures that unite labels, such as the epicardium's inside (LV and myocardium).

    Raises:
        ValueError: the masks are not boolean or differ in shape.
    """
    check_masks(predicted, reference)
    size = int(predicted.sum()) + int(reference.sum())
    return 2 * int((predicted & reference).sum()) / size if size else 1.0


def mask_iou(predicted: np.ndarray, reference: np.ndarray) -> float:
    """Intersection over union (Jaccard) of two boolean masks (H, W); 1 if both are empty."""
    check_masks(predicted, reference)
    union = int((predicted | reference).sum())
    return int((predicted & reference).sum()) / union if union else 1.0


def mask_mse(predicted: np.ndarray, reference: np.ndarray) -> float:
    """Mean squared difference of two boolean masks (H, W): the part of pixels that are wrong."""
    check_masks(predicted, reference)
    return float((predicted != reference).mean())


def check_masks(predicted: np.ndarray, reference: np.ndarray) -> None:
    """Refuse anything but two boolean (H, W) masks of equal shape with a ValueError."""
    if predicted.dtype != bool or reference.dtype != bool:
        raise ValueError(f"masks must be boolean, got {predicted.dtype} and {reference.dtype}")
    if predicted.ndim != 2 or predicted.shape != reference.shape:
        raise ValueError(
            f"masks must be (H, W) and equal in shape, got {predicted.shape} and {reference.shape}"
        )
