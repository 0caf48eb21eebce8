"""Batch normalisation over the batches of all workers, on CPU and GPU.

torch.nn.SyncBatchNorm supports GPUs only. Without this module, several CPU workers would each use
the statistics of their part of the batch, and would get a different result than one worker.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed


class SumOverWorkers(torch.autograd.Function):
    """Sum a tensor over all workers. The gradient is summed over all workers, too."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


class SyncBatchNorm2d(torch.nn.BatchNorm2d):
    """BatchNorm2d with the statistics of the global batch in training.

    The batches of all workers must have the same size. Gradients flow through the statistics, as in
    Ioffe and Szegedy (ICML 2015, section 3.1).
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        wide = x.float()  # x may have too few digits for a difference of squares
        local = torch.stack([wide.mean((0, 2, 3)), wide.square().mean((0, 2, 3))])
        mean, square = SumOverWorkers.apply(local) / distributed.get_world_size()
        variance = (square - mean.square()).clamp_min(0)
        self._update(mean.detach(), variance.detach(), x)
        scale = (variance + self.eps).rsqrt()
        shift = -mean * scale
        if self.weight is not None:
            scale, shift = scale * self.weight, shift * self.weight + self.bias
        return (wide * scale[:, None, None] + shift[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _update(self, mean: torch.Tensor, variance: torch.Tensor, x: torch.Tensor) -> None:
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None  # our networks use a fixed momentum
        count = x.numel() / x.shape[1] * distributed.get_world_size()
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / max(count - 1, 1), self.momentum)


def synchronise_batch_norm(network: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Replace every BatchNorm2d by a layer that normalises over the batches of all workers."""
    if device.type == "cuda":
        return torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.__class__ = SyncBatchNorm2d  # same parameters, buffers and names
    return network
