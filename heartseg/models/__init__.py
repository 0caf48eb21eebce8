"""The networks, built from a recipe's `model` section."""

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
    """The network that a recipe describes, on CPU, in training mode.

    It maps float32 (N, in_channels, H, W) to logits (N, out_channels, H, W), for any H and W; in
    training mode a network with an auxiliary head returns (logits, auxiliary logits).

    Args:
        config: the recipe's `model`.
        out_channels: number of logits per pixel.
        pretrained: False leaves out the weights that the recipe starts from: for callers that
            load a trained state right after, who then need neither network nor weight file.

    Raises:
        InputError: pretrained weights are missing or do not fit.
    """
    match config:  # each module is imported only where its network is wanted: MONAI takes seconds
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
