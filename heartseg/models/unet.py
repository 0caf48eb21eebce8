"""MONAI's U-Net and DynUNet."""

from __future__ import annotations

import torch
from monai.networks.nets import DynUNet, UNet
from torch import nn

from heartseg.config.recipe import DynUNetConfig, UNetConfig
from heartseg.models.padding import pad_to_multiple


class PaddedNetwork(nn.Module):
    """A network with input sizes that are multiples of `stride`, made to accept any size."""

    def __init__(self, network: nn.Module, stride: int):
        super().__init__()
        self.network = network
        self.stride = stride

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute logits (N, K, H, W) of images (N, C, H, W)."""
        height, width = images.shape[-2:]
        return self.network(pad_to_multiple(images, self.stride))[..., :height, :width]


def build_unet(config: UNetConfig, out_channels: int) -> nn.Module:
    """Build a residual U-Net (Kerfoot et al., STACOM 2018)."""
    halvings = len(config.channels) - 1
    network = UNet(
        spatial_dims=2,
        in_channels=config.in_channels,
        out_channels=out_channels,
        channels=config.channels,
        strides=[2] * halvings,
        num_res_units=config.residual_units,
        dropout=config.dropout,
    )
    return PaddedNetwork(network, 2**halvings)


def build_dynunet(config: DynUNetConfig, out_channels: int) -> nn.Module:
    """Build nnU-Net's network with residual blocks (Isensee et al., Nature Methods 18, 2021)."""
    levels = len(config.filters)
    strides = [1] + [2] * (levels - 1)
    network = DynUNet(
        spatial_dims=2,
        in_channels=config.in_channels,
        out_channels=out_channels,
        kernel_size=[3] * levels,
        strides=strides,
        upsample_kernel_size=strides[1:],
        filters=config.filters,
        dropout=config.dropout or None,
        deep_supervision=False,
        res_block=True,
    )
    return PaddedNetwork(network, 2 ** (levels - 1))
