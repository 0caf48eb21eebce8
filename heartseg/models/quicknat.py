"""QuickNAT (Roy et al., NeuroImage 186, 2019, arXiv:1801.04161)."""

from __future__ import annotations

import torch
from torch import nn

from heartseg.config.recipe import QuickNATConfig
from heartseg.models.padding import pad_to_multiple

DEPTH = 4
"""Number of encoders and of decoders."""


class QuickNAT(nn.Module):
    """Four dense encoders, a dense bottleneck and four dense decoders.

    The decoders upsample by index unpooling: each value returns to the position of the maximum that
    the encoder's max pooling found, which preserves thin structures without learnt upsampling. With
    64 filters of 5x5 and one input channel, this is the network of the paper, which has 3.5 million
    parameters.

    The input is (N, in_channels, H, W), the output logits (N, out_channels, H, W), for any H and W.

    Raises:
        InputError: The pretrained weights are missing or do not fit the network.
    """

    def __init__(self, config: QuickNATConfig, out_channels: int, *, pretrained: bool = True):
        super().__init__()
        filters = config.filters
        self.encoders = nn.ModuleList(
            _dense_block(config, config.in_channels if level == 0 else filters)
            for level in range(DEPTH)
        )
        # The bottleneck has neither squeeze & excitation nor dropout (figure 1 of the paper).
        self.bottleneck = DenseBlock(filters, filters, config.kernel)
        self.decoders = nn.ModuleList(_dense_block(config, 2 * filters) for _ in range(DEPTH))
        self.classifier = nn.Conv2d(filters, out_channels, kernel_size=1)
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.unpool = nn.MaxUnpool2d(2)
        if pretrained and config.weights is not None:
            from heartseg.models.pretrained import load_quicknat_weights

            load_quicknat_weights(self, config.weights)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[-2:]
        x = pad_to_multiple(images, 2**DEPTH)
        skips = []
        for encoder in self.encoders:
            features = encoder(x)
            x, indices = self.pool(features)
            skips.append((features, indices))
        x = self.bottleneck(x)
        for decoder in self.decoders:
            features, indices = skips.pop()
            x = decoder(torch.cat([features, self.unpool(x, indices)], dim=1))
        return self.classifier(x)[..., :height, :width]


def _dense_block(config: QuickNATConfig, in_channels: int) -> nn.Sequential:
    """Build an encoder or decoder: a dense block with optional recalibration and dropout."""
    block = nn.Sequential(DenseBlock(in_channels, config.filters, config.kernel))
    if config.squeeze_excite != "none":
        block.append(SqueezeExcite(config.filters, config.squeeze_excite))
    if config.dropout > 0:
        block.append(nn.Dropout2d(config.dropout))
    return block


class DenseBlock(nn.Module):
    """Three times batch norm, PReLU and convolution, each on the concatenation of all before it.

    Two convolutions are kernel x kernel. The third one is 1x1 and compresses to `filters` channels.
    The three PReLUs share one slope, as in the authors' implementation.
    """

    def __init__(self, in_channels: int, filters: int, kernel: int):
        super().__init__()
        channels = [in_channels, in_channels + filters, in_channels + 2 * filters]
        self.norms = nn.ModuleList(nn.BatchNorm2d(count) for count in channels)
        self.activation = nn.PReLU()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(count, filters, size, padding=size // 2)
            for count, size in zip(channels, [kernel, kernel, 1], strict=True)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            new = convolution(self.activation(norm(x)))
            x = torch.cat([x, new], dim=1)
        return new


class SqueezeExcite(nn.Module):
    """Recalibration of a feature map (Roy et al., IEEE TMI 38(2), 2019, arXiv:1808.08127).

    Args:
        channels: Channels of the feature map.
        kind: "channel": a weight per channel, computed from the channels' means through a
            bottleneck of half the channels; "spatial": a weight per pixel from a 1x1 convolution;
            "both": the maximum of both results (the best of four combinations in the paper).
    """

    def __init__(self, channels: int, kind: str):
        super().__init__()
        self.channel: nn.Module | None = None
        self.spatial: nn.Module | None = None
        if kind in ("channel", "both"):
            half = max(1, channels // 2)
            self.channel = nn.Sequential(
                nn.AdaptiveAvgPool2d(1),
                nn.Conv2d(channels, half, 1),
                nn.ReLU(),
                nn.Conv2d(half, channels, 1),
                nn.Sigmoid(),
            )
        if kind in ("spatial", "both"):
            self.spatial = nn.Sequential(nn.Conv2d(channels, 1, 1), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        results = [x * gate(x) for gate in (self.channel, self.spatial) if gate is not None]
        return results[0] if len(results) == 1 else torch.maximum(*results)
