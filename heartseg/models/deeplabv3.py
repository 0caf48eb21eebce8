"""DeepLabV3 (Chen et al. 2017, arXiv:1706.05587), built from torchvision's modules.

The decoder of DeepLabV3+ (Chen et al. 2018, arXiv:1802.02611) is optional.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import get_model
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation.deeplabv3 import ASPP, ASPPPooling, DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead

from heartseg.config.recipe import DeepLabV3Config
from heartseg.errors import InputError
from heartseg.models.pretrained import load_backbone_weights, load_segmentation_weights

FIRST_CONVOLUTION = {"resnet50": "conv1", "resnet101": "conv1", "mobilenet_v3_large": "0.0"}
"""Name of the first convolution in torchvision's backbones."""

LAYERS = {
    "resnet50": {"low": ("layer1", 256), "aux": ("layer3", 1024), "out": ("layer4", 2048)},
    "resnet101": {"low": ("layer1", 256), "aux": ("layer3", 1024), "out": ("layer4", 2048)},
    "mobilenet_v3_large": {"low": ("3", 24), "aux": ("4", 40), "out": ("16", 960)},
}
"""Names and channels of the layers that the heads use; "low" has stride 4."""


class DeepLabV3(nn.Module):
    """Backbone, atrous spatial pyramid pooling (ASPP) and classifier.

    The modules have the names of torchvision's DeepLabV3, so that its weights fit. The input is
    (N, in_channels, H, W), the output logits (N, out_channels, H, W). With an auxiliary head, the
    output in training mode is (logits, auxiliary logits), both of that shape.

    Raises:
        InputError: The pretrained weights are missing or do not fit the network.
    """

    def __init__(self, config: DeepLabV3Config, out_channels: int, *, pretrained: bool = True):
        super().__init__()
        layers = LAYERS[config.backbone]
        wanted = {"low": config.decoder_skip, "aux": config.auxiliary, "out": True}
        self.backbone = IntermediateLayerGetter(
            _backbone(config), {layers[name][0]: name for name in layers if wanted[name]}
        )
        rates = atrous_rates(config)
        channels = layers["out"][1]
        self.classifier: nn.Module
        if config.decoder_skip:
            light = config.backbone == "mobilenet_v3_large"
            self.classifier = PlusHead(channels, layers["low"][1], rates, out_channels, light)
        else:
            self.classifier = DeepLabHead(channels, out_channels, rates)
        self.aux_classifier = FCNHead(layers["aux"][1], out_channels) if config.auxiliary else None
        _replace_pooling_norm(self)

        if config.weights is None and config.backbone_weights is None:
            _set_batch_norm_momentum(self)
        elif pretrained and config.weights is not None:
            _check_rates(config)
            load_segmentation_weights(self, config.backbone, config.weights)
        elif pretrained and config.backbone_weights is not None:
            load_backbone_weights(self, config.backbone, config.backbone_weights)

    def forward(self, images: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        size = images.shape[-2:]
        features = self.backbone(images)
        if isinstance(self.classifier, PlusHead):
            logits = self.classifier(features["out"], features["low"])
        else:
            logits = self.classifier(features["out"])
        logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        if self.aux_classifier is None or not self.training:
            return logits
        auxiliary = self.aux_classifier(features["aux"])
        return logits, F.interpolate(auxiliary, size=size, mode="bilinear", align_corners=False)


def atrous_rates(config: DeepLabV3Config) -> tuple[int, ...]:
    """Return the dilations of ASPP's three 3x3 convolutions.

    They are 6, 12, 18 at output stride 16 in the paper (section 3.3) and in torchvision's ResNets,
    and 12, 24, 36 in torchvision's MobileNet. Output stride 8 doubles them.
    """
    if config.atrous_rates != "auto":
        return tuple(config.atrous_rates)
    by_name = config.weights is not None and not _is_file(config.weights)
    wide = by_name and config.backbone == "mobilenet_v3_large"
    factor = (2 if wide else 1) * 16 // config.output_stride
    return 6 * factor, 12 * factor, 18 * factor


def _is_file(source: str) -> bool:
    """Return whether a source of weights is a path, as opposed to a torchvision name."""
    return source.endswith((".pth", ".pt", ".safetensors")) or "/" in source


def _check_rates(config: DeepLabV3Config) -> None:
    """Reject MobileNet weights from a file without explicit rates, which no state dict contains.

    Raises:
        InputError: The recipe does not state the rates.
    """
    assert config.weights is not None
    is_mobile = config.backbone == "mobilenet_v3_large"
    if is_mobile and config.atrous_rates == "auto" and _is_file(config.weights):
        raise InputError(
            f"{config.weights} does not contain the dilations of ASPP. Set model.atrous_rates in "
            "the recipe: [12, 24, 36] for torchvision's weights; for heartseg's the value in the "
            "recipe of that training ([6, 12, 18] for auto at output stride 16)"
        )


class PlusHead(nn.ModuleDict):
    """ASPP and the decoder of DeepLabV3+ (arXiv:1802.02611, section 3.1).

    A 1x1 convolution reduces the features of stride 4 to few channels. They are concatenated with
    the upsampled output of ASPP and refined by two 3x3 convolutions. The logits have stride 4.

    Args:
        channels: Channels of the last feature map.
        low_channels: Channels of the feature map of stride 4.
        rates: Dilations of ASPP.
        classes: Channels of the logits.
        light: Use separable convolutions and fewer channels, for MobileNet.
    """

    def __init__(
        self, channels: int, low_channels: int, rates: tuple[int, ...], classes: int, light: bool
    ):
        reduced = 24 if light else 48
        refine = _separable if light else _convolution
        super().__init__(
            {
                "0": ASPP(channels, rates),  # its name in torchvision's head
                "low": _convolution(low_channels, reduced, 1),
                "decoder": nn.Sequential(refine(256 + reduced, 256, 3), refine(256, 256, 3)),
                "logits": nn.Conv2d(256, classes, 1),
            }
        )

    def forward(self, x: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
        x = F.interpolate(self["0"](x), size=low.shape[-2:], mode="bilinear", align_corners=False)
        return self["logits"](self["decoder"](torch.cat([x, self["low"](low)], dim=1)))


def _convolution(channels: int, filters: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, filters, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(filters),
        nn.ReLU(),
    )


def _separable(channels: int, filters: int, kernel: int) -> nn.Sequential:
    """Build a depthwise and a pointwise convolution, a ninth of the cost of a full 3x3 one."""
    depthwise = nn.Conv2d(
        channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False
    )
    return nn.Sequential(
        depthwise, nn.BatchNorm2d(channels), nn.ReLU(), *_convolution(channels, filters, 1)
    )


def _backbone(config: DeepLabV3Config) -> nn.Module:
    """Build torchvision's backbone with the configured output stride and input channels."""
    eight = config.output_stride == 8
    if config.backbone == "mobilenet_v3_large":
        backbone = get_model(config.backbone, weights=None, dilated=True).features  # stride 16
        if eight:
            _dilate(backbone[7:16])  # starts with the block that goes from stride 8 to 16
    else:
        backbone = get_model(
            config.backbone, weights=None, replace_stride_with_dilation=[False, eight, True]
        )
    if config.in_channels != 3:
        old = backbone.get_submodule(FIRST_CONVOLUTION[config.backbone])
        new = nn.Conv2d(
            config.in_channels,
            old.out_channels,
            old.kernel_size,
            old.stride,
            old.padding,
            bias=False,
        )
        nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")  # as torchvision
        backbone.set_submodule(FIRST_CONVOLUTION[config.backbone], new)
    return backbone


def _dilate(blocks: nn.Module) -> None:
    """Replace the stride of 2 in the first block by a dilation of 2 in the following layers.

    Each convolution keeps its field of view ("atrous", arXiv:1706.05587, section 3.1), so
    pretrained weights remain valid.
    """
    for layer in blocks.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1):
            if layer.stride == (2, 2):
                layer.stride = (1, 1)
            else:
                layer.dilation = (2 * layer.dilation[0], 2 * layer.dilation[1])
                layer.padding = tuple(2 * int(pixels) for pixels in layer.padding)


def _set_batch_norm_momentum(network: nn.Module) -> None:
    """Set the momentum of every BatchNorm to PyTorch's default of 0.1.

    torchvision uses 0.01 for MobileNetV3. With that value, the running statistics still depend on
    their initial values after hundreds of steps, and trainings on small datasets have few steps.
    """
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.1


class ImagePoolingNorm(nn.BatchNorm2d):
    """BatchNorm of the image-pooling branch of ASPP, where an image has one value per channel.

    A batch of one image has no variance, and PyTorch raises an error in training mode. Such a batch
    is normalised with the running statistics, as in evaluation.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and x.shape[0] == 1:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)


def _replace_pooling_norm(network: nn.Module) -> None:
    """Replace the BatchNorm of the image-pooling branch by `ImagePoolingNorm`."""
    for layer in network.modules():
        if isinstance(layer, ASPPPooling):
            layer[2] = ImagePoolingNorm(layer[2].num_features)
