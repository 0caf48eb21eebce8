"""A small convolutional network that classifies a whole M-mode window."""

from __future__ import annotations

import torch
from torch import nn

from heartseg.config.recipe import WindowCNNConfig


class WindowCNN(nn.Module):
    """Blocks of convolution, batch norm, ReLU and max pooling, then an average and a linear layer.

    Every pixel gets the logits of the window, so that the surrounding code can treat the network
    like one that segments.

    The input is (N, in_channels, H, W), the output logits (N, out_channels, H, W), equal in all
    pixels. H and W must be at least 2 to the power of the number of blocks.
    """

    def __init__(self, config: WindowCNNConfig, out_channels: int):
        super().__init__()
        blocks: list[nn.Module] = []
        channels = config.in_channels
        for filters in config.filters:
            convolution = nn.Conv2d(channels, filters, 3, padding=1, bias=False)
            blocks += [convolution, nn.BatchNorm2d(filters), nn.ReLU(), nn.MaxPool2d(2)]
            channels = filters
        self.features = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(config.dropout)
        self.decision = nn.Linear(channels, out_channels)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pooled = self.features(images).mean((2, 3))
        logits = self.decision(self.dropout(pooled))
        return logits[:, :, None, None].expand(-1, -1, *images.shape[2:])
