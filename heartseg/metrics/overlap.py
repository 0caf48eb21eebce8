"""Overlap of label maps and masks. Counts can be added before the overlap is computed."""

from __future__ import annotations

import numpy as np
import torch


def confusion_counts(
    predicted: torch.Tensor, reference: torch.Tensor, n_labels: int
) -> torch.Tensor:
    """Count true positive, false positive and false negative pixels per case and label.

    Sum the counts over batches, ranks or cases before computing Dice.

    Args:
        predicted: Integer or boolean label maps (N, H, W) with values 0 .. n_labels - 1.
        reference: Label maps of the same shape.
        n_labels: Number of labels, including the background.

    Returns:
        Counts int64 (N, n_labels, 3) with the last axis (tp, fp, fn), on the device of `predicted`.

    Raises:
        ValueError: The shapes are wrong or differ, or a label is out of range.
        TypeError: The maps are not integer, such as logits or probabilities.
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
    """Compute Dice, 2 tp / (2 tp + fp + fn).

    Dice is 1 if a structure is absent from both reference and prediction, so that means over cases
    are never NaN. It is 0 if the structure is absent from one of them.

    Args:
        counts: Integer counts (..., 3) with the last axis (tp, fp, fn).

    Returns:
        Dice float64 (...).

    Raises:
        ValueError: The last axis does not have length 3, or a count is negative.
    """
    if counts.ndim < 1 or counts.shape[-1] != 3:
        raise ValueError(f"counts must be (..., 3) for tp, fp, fn; got {tuple(counts.shape)}")
    if counts.numel() and int(counts.min()) < 0:
        raise ValueError("counts must not be negative")
    tp, fp, fn = counts.double().unbind(-1)
    size = 2 * tp + fp + fn
    return torch.where(size > 0, 2 * tp / size.clamp(min=1), torch.ones_like(tp))


def mask_dice(predicted: np.ndarray, reference: np.ndarray) -> float:
    """Compute Dice of two boolean masks (H, W); 1 if both are empty.

    Use it for structures of several labels, such as the LV with its myocardium.

    Raises:
        ValueError: The masks are not boolean or differ in shape.
    """
    check_masks(predicted, reference)
    size = int(predicted.sum()) + int(reference.sum())
    return 2 * int((predicted & reference).sum()) / size if size else 1.0


def mask_iou(predicted: np.ndarray, reference: np.ndarray) -> float:
    """Compute intersection over union of two boolean masks (H, W); 1 if both are empty.

    Raises:
        ValueError: The masks are not boolean or differ in shape.
    """
    check_masks(predicted, reference)
    union = int((predicted | reference).sum())
    return int((predicted & reference).sum()) / union if union else 1.0


def mask_mse(predicted: np.ndarray, reference: np.ndarray) -> float:
    """Compute the mean squared difference of two boolean masks: the fraction of wrong pixels.

    Raises:
        ValueError: The masks are not boolean or differ in shape.
    """
    check_masks(predicted, reference)
    return float((predicted != reference).mean())


def check_masks(predicted: np.ndarray, reference: np.ndarray) -> None:
    """Check that both masks are boolean (H, W) and of equal shape.

    Raises:
        ValueError: They are not.
    """
    if predicted.dtype != bool or reference.dtype != bool:
        raise ValueError(f"masks must be boolean, got {predicted.dtype} and {reference.dtype}")
    if predicted.ndim != 2 or predicted.shape != reference.shape:
        raise ValueError(
            f"masks must be (H, W) and equal in shape, got {predicted.shape} and {reference.shape}"
        )
