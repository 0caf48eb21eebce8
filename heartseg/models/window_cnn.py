"""A small network that decides about a whole M-mode window."""

from __future__ import annotations

import torch
from torch import nn

from heartseg.config.recipe import WindowCNNConfig


class WindowCNN(nn.Module):
    """Blocks of convolution, batch normalisation, ReLU and pooling; a global average; a decision.

    The logits of the window stand in every pixel, as its label does in the label map, so nothing
    around the network needs to know that it classifies.

    Input (N, in_channels, H, W), output logits (N, out_channels, H, W), the same in all H and W,
    for any H and W of at least 2 to the power of the number of blocks.
    """

    def __init__(self, config: WindowCNNConfig, out_channels: int):
        super().__init__()
        blocks: list[nn.Module] = []
        seen = config.in_channels
        for filters in config.filters:
            convolution = nn.Conv2d(seen, filters, 3, padding=1, bias=False)
            blocks += [convolution, nn.BatchNorm2d(filters), nn.ReLU(), nn.MaxPool2d(2)]
            seen = filters
        self.features = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(config.dropout)
        self.decision = nn.Linear(seen, out_channels)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pooled = self.features(images).mean((2, 3))
        logits = self.decision(self.dropout(pooled))
        return logits[:, :, None, None].expand(-1, -1, *images.shape[2:])
