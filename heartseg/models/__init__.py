"""Segmentation networks, their pre- and post-processing, and packaged models."""

from __future__ import annotations

from torch import nn

from heartseg.config.recipe import (
    DeepLabV3Config,
    DynUNetConfig,
    ModelConfig,
    QuickNATConfig,
    UNetConfig,
    WindowCNNConfig,
)


def build_network(config: ModelConfig, out_channels: int, *, pretrained: bool = True) -> nn.Module:
    """Build the network of a recipe, on the CPU and in training mode.

    The network maps float32 images (N, in_channels, H, W) to logits (N, out_channels, H, W) for any
    H and W. In training mode, a network with an auxiliary head returns (logits, auxiliary logits).

    Args:
        config: Section `model` of the recipe.
        out_channels: Number of logits per pixel.
        pretrained: Whether to load the weights from which the recipe starts. Set it to False if
            trained weights are loaded afterwards; no file and no download is needed then.

    Raises:
        InputError: The pretrained weights are missing or do not fit the network.
    """
    match config:  # import only the required module, because importing MONAI takes seconds
        case DeepLabV3Config():
            from heartseg.models.deeplabv3 import DeepLabV3

            return DeepLabV3(config, out_channels, pretrained=pretrained)
        case QuickNATConfig():
            from heartseg.models.quicknat import QuickNAT

            return QuickNAT(config, out_channels, pretrained=pretrained)
        case UNetConfig():
            from heartseg.models.unet import build_unet

            return build_unet(config, out_channels)
        case DynUNetConfig():
            from heartseg.models.unet import build_dynunet

            return build_dynunet(config, out_channels)
        case WindowCNNConfig():
            from heartseg.models.window_cnn import WindowCNN

            return WindowCNN(config, out_channels)
