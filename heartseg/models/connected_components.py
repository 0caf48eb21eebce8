"""Largest connected component per label, in PyTorch operators that `torch.export` can carry.

A registered model does its own post-processing, on images of any size and without heartseg; so
the components are found by operators on whole tensors, not by a library for label maps.
"""

from __future__ import annotations

import torch
from torch._higher_order_ops.while_loop import while_loop  # no public name as of torch 2.14


def keep_largest(labels: torch.Tensor, n_labels: int) -> torch.Tensor:
    """Keep the largest 4-connected part of each label; the rest becomes background.

    Of two equally large parts, the one whose last pixel comes later stays.

    Args:
        labels: uint8 (N, H, W), 0 is the background.
        n_labels: number of labels, background included.

    Returns:
        uint8 (N, H, W).
    """
    parts = _parts(labels)
    sizes = torch.zeros_like(parts.flatten(1)).scatter_add(
        1, parts.flatten(1), torch.ones_like(parts.flatten(1))
    )
    n_pixels = labels.shape[1] * labels.shape[2]
    # The size first, then the part's number, so that no two parts are equal.
    rank = (sizes.gather(1, parts.flatten(1)) * n_pixels + parts.flatten(1)).view_as(parts)
    kept = torch.zeros_like(labels)
    for label in range(1, n_labels):
        own = torch.where(labels == label, rank, -1)
        largest = own.amax((1, 2), keepdim=True)
        kept = torch.where((own == largest) & (own >= 0), label, kept)
    return kept.to(torch.uint8)


def _parts(labels: torch.Tensor) -> torch.Tensor:
    """Number the connected parts: int64 (N, H, W), the greatest pixel number of each one's part.

    Rounds of spreading the greatest number along rows and columns go on until nothing changes.
    """
    height, width = labels.shape[1:]
    pixels = torch.arange(height * width, device=labels.device).view(1, height, width)
    state: tuple[torch.Tensor, ...] = (
        pixels.expand_as(labels).clone(),
        pixels.expand_as(labels) - 1,
    )
    runs = (_runs(labels, 2), _runs(labels, 1))
    if torch.compiler.is_exporting():  # a loop of Python's would be unrolled
        return while_loop(_changes, _spread, (*state, *runs))[0]
    while _changes(*state, *runs):
        state = _spread(*state, *runs)[:2]
    return state[0]


def _changes(parts: torch.Tensor, before: torch.Tensor, *runs: torch.Tensor) -> torch.Tensor:
    # Not any(): ONNX has none, and what stands for it is true for an empty batch.
    return (parts != before).sum() > 0


def _spread(
    parts: torch.Tensor, before: torch.Tensor, *runs: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """One round; `parts` and what a loop in a graph carries on with it."""
    new = parts
    for axis, run in zip((2, 1), runs, strict=True):
        greatest = torch.zeros_like(new).scatter_reduce(axis, run, new, "amax")
        new = greatest.gather(axis, run)
    # Its greatest number is a pixel of the same part, which may know a greater one by now.
    new = new.flatten(1).gather(1, new.flatten(1)).view_as(new)
    return (new, *(tensor.clone() for tensor in (parts, *runs)))  # a graph wants no aliases


def _runs(labels: torch.Tensor, axis: int) -> torch.Tensor:
    """int64 (N, H, W): the number of the run of equal labels, counted along an axis."""
    before = torch.cat((labels.narrow(axis, 0, 1), labels), axis)
    changes = labels != before.narrow(axis, 0, labels.shape[axis])
    return changes.to(torch.int64).cumsum(axis)
