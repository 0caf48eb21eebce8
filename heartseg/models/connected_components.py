"""Largest connected component of each label, in PyTorch operators that `torch.export` supports.

The post-processing is part of the exported model, which runs without heartseg on images of any
size. Libraries for label maps cannot be exported, so this module uses tensor operators.
"""

from __future__ import annotations

import torch
from torch._higher_order_ops.while_loop import while_loop  # no public name as of torch 2.14


def keep_largest_components(labels: torch.Tensor, n_labels: int) -> torch.Tensor:
    """Keep the largest 4-connected component of each label and set the others to background.

    Of two equally large components, the one whose last pixel has the greater index is kept.

    Args:
        labels: Label maps uint8 (N, H, W); 0 is the background.
        n_labels: Number of labels, including the background.

    Returns:
        Label maps uint8 (N, H, W).
    """
    components = _component_ids(labels)
    ids = components.flatten(1)
    sizes = torch.zeros_like(ids).scatter_add(1, ids, torch.ones_like(ids))
    n_pixels = labels.shape[1] * labels.shape[2]
    # Rank by size, then by id, so that no two components have the same rank.
    rank = (sizes.gather(1, ids) * n_pixels + ids).view_as(components)
    kept = torch.zeros_like(labels)
    for label in range(1, n_labels):
        own = torch.where(labels == label, rank, -1)
        largest = own.amax((1, 2), keepdim=True)
        kept = torch.where((own == largest) & (own >= 0), label, kept)
    return kept.to(torch.uint8)


def _component_ids(labels: torch.Tensor) -> torch.Tensor:
    """Compute the id of each pixel's component: the greatest pixel index in it, int64 (N, H, W).

    The greatest index is propagated along rows and columns until nothing changes.
    """
    height, width = labels.shape[1:]
    pixels = torch.arange(height * width, device=labels.device).view(1, height, width)
    state: tuple[torch.Tensor, ...] = (
        pixels.expand_as(labels).clone(),
        pixels.expand_as(labels) - 1,
    )
    runs = (_runs(labels, 2), _runs(labels, 1))
    if torch.compiler.is_exporting():  # the export would unroll a Python loop
        return while_loop(_has_changed, _propagate, (*state, *runs))[0]
    while _has_changed(*state, *runs):
        state = _propagate(*state, *runs)[:2]
    return state[0]


def _has_changed(ids: torch.Tensor, previous: torch.Tensor, *runs: torch.Tensor) -> torch.Tensor:
    # ONNX has no any(), and its replacement is true for an empty batch.
    return (ids != previous).sum() > 0


def _propagate(
    ids: torch.Tensor, previous: torch.Tensor, *runs: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Propagate the ids once along rows and columns.

    Returns:
        The new ids, `ids` and `runs`: the arguments of the next round, as `while_loop` requires.
    """
    new = ids
    for axis, run in zip((2, 1), runs, strict=True):
        greatest = torch.zeros_like(new).scatter_reduce(axis, run, new, "amax")
        new = greatest.gather(axis, run)
    # The id is the index of a pixel in the same component, whose own id may be greater already.
    new = new.flatten(1).gather(1, new.flatten(1)).view_as(new)
    return (new, *(tensor.clone() for tensor in (ids, *runs)))  # while_loop forbids aliases


def _runs(labels: torch.Tensor, axis: int) -> torch.Tensor:
    """Number the runs of equal labels along an axis, int64 (N, H, W)."""
    previous = torch.cat((labels.narrow(axis, 0, 1), labels), axis)
    changes = labels != previous.narrow(axis, 0, labels.shape[axis])
    return changes.to(torch.int64).cumsum(axis)
