"""Largest connected component per label, in PyTorch operators that `torch.export` can carry.

A registered model does its own post-processing, on images of any size and without heartseg; so
the components are found by operators on whole tensors, not by a library for label maps.
"""

from __future__ import annotations

import torch

SWEEPS = 8
"""Most rounds along the rows and the columns; an exported graph, which cannot end when nothing
changes, does them all. A chamber takes 3 or 4; a maze may take more and then falls apart."""


def keep_largest(labels: torch.Tensor, n_labels: int) -> torch.Tensor:
    """Label maps with each label's largest 4-connected part only; the rest becomes background.

    Of two equally large parts, the one whose last pixel comes later stays.

    Args:
        labels: uint8 (N, H, W), 0 is the background.
        n_labels: number of labels, background included.
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
    """int64 (N, H, W): each pixel gets the greatest pixel number of its connected part."""
    height, width = labels.shape[1:]
    parts = torch.arange(height * width, device=labels.device).view(1, height, width)
    parts = parts.expand_as(labels)
    along = [(axis, _runs(labels, axis)) for axis in (2, 1)]
    for _ in range(SWEEPS):
        before = parts
        for axis, runs in along:
            greatest = torch.zeros_like(parts).scatter_reduce(axis, runs, parts, "amax")
            parts = greatest.gather(axis, runs)
        # Its greatest number is a pixel of the same part, which may know a greater one by now.
        parts = parts.flatten(1).gather(1, parts.flatten(1)).view_as(parts)
        if not torch.compiler.is_exporting() and torch.equal(parts, before):
            break
    return parts


def _runs(labels: torch.Tensor, axis: int) -> torch.Tensor:
    """int64 (N, H, W): the number of the run of equal labels, counted along an axis."""
    size = labels.shape[axis]
    changes = labels.narrow(axis, 1, size - 1) != labels.narrow(axis, 0, size - 1)
    first = torch.zeros_like(labels.narrow(axis, 0, 1), dtype=torch.int64)
    return torch.cat((first, changes.to(torch.int64)), axis).cumsum(axis)
