"""DeepLabV3 (Chen et al. 2017, arXiv:1706.05587) from torchvision's parts, with the decoder of
DeepLabV3+ (Chen et al. 2018, arXiv:1802.02611) where the recipe wants it."""

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

FIRST = {"resnet50": "conv1", "resnet101": "conv1", "mobilenet_v3_large": "0.0"}
"""Name of the first convolution in torchvision's backbones."""

LAYERS = {
    "resnet50": {"low": ("layer1", 256), "aux": ("layer3", 1024), "out": ("layer4", 2048)},
    "resnet101": {"low": ("layer1", 256), "aux": ("layer3", 1024), "out": ("layer4", 2048)},
    "mobilenet_v3_large": {"low": ("3", 24), "aux": ("4", 40), "out": ("16", 960)},
}
"""Names and channels of the layers that the heads use; "low" is of stride 4."""


class DeepLabV3(nn.Module):
    """Backbone, atrous spatial pyramid pooling (ASPP) and classifier.

    Modules are named as in torchvision's DeepLabV3, so that its weights fit. Input
    (N, in_channels, H, W), output logits (N, out_channels, H, W); in training mode with an
    auxiliary head (logits, auxiliary logits), both of that shape.

    Raises:
        InputError: pretrained weights are missing or do not fit.
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
        _accept_one_image(self)

        if config.weights is None and config.backbone_weights is None:
            _quicken_running_statistics(self)
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

    The paper's are 6, 12, 18 at output stride 16 (section 3.3), and torchvision's ResNets follow
    it. torchvision's MobileNet has 12, 24, 36 at stride 16. Half the stride doubles the rates.
    """
    if config.atrous_rates != "auto":
        return tuple(config.atrous_rates)
    by_name = config.weights is not None and not _is_file(config.weights)
    wide = by_name and config.backbone == "mobilenet_v3_large"
    factor = (2 if wide else 1) * 16 // config.output_stride
    return 6 * factor, 12 * factor, 18 * factor


def _is_file(source: str) -> bool:
    """Whether a source of weights is a path; torchvision's names have neither ending nor folder."""
    return source.endswith((".pth", ".pt", ".safetensors")) or "/" in source


def _check_rates(config: DeepLabV3Config) -> None:
    """Refuse weights from a file whose dilations nothing tells: they are in no state dict."""
    assert config.weights is not None
    is_mobile = config.backbone == "mobilenet_v3_large"
    if is_mobile and config.atrous_rates == "auto" and _is_file(config.weights):
        raise InputError(
            f"{config.weights}: the file does not say with which dilations of ASPP it was trained. "
            "Set model.atrous_rates in the recipe: [12, 24, 36] for torchvision's weights, what "
            "the model's own recipe says ([6, 12, 18] for auto at output stride 16) for heartseg's"
        )


class PlusHead(nn.ModuleDict):
    """ASPP and the decoder of DeepLabV3+ (arXiv:1802.02611, section 3.1).

    Features of stride 4 are reduced to a few channels, joined with the upsampled output of ASPP,
    and refined by two 3x3 convolutions. Returns logits of stride 4.
    """

    def __init__(
        self, channels: int, low_channels: int, rates: tuple[int, ...], classes: int, light: bool
    ):
        reduced = 24 if light else 48
        refine = _separable if light else _convolution
        super().__init__(
            {
                "0": ASPP(channels, rates),  # the name it has in torchvision's head
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
    """Depthwise, then pointwise convolution: a ninth of the work (section 3.1 of the paper)."""
    depthwise = nn.Conv2d(
        channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False
    )
    return nn.Sequential(
        depthwise, nn.BatchNorm2d(channels), nn.ReLU(), *_convolution(channels, filters, 1)
    )


def _backbone(config: DeepLabV3Config) -> nn.Module:
    """torchvision's backbone at the wanted stride and with the wanted input channels."""
    eight = config.output_stride == 8
    if config.backbone == "mobilenet_v3_large":
        backbone = get_model(config.backbone, weights=None, dilated=True).features  # stride 16
        if eight:
            _dilate(backbone[7:16])  # from the block that halves the size from stride 8 to 16
    else:
        backbone = get_model(
            config.backbone, weights=None, replace_stride_with_dilation=[False, eight, True]
        )
    if config.in_channels != 3:
        old = backbone.get_submodule(FIRST[config.backbone])
        new = nn.Conv2d(
            config.in_channels,
            old.out_channels,
            old.kernel_size,
            old.stride,
            old.padding,
            bias=False,
        )
        nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")  # as torchvision
        backbone.set_submodule(FIRST[config.backbone], new)
    return backbone


def _dilate(blocks: nn.Module) -> None:
    """Leave out the halving in the first of these blocks and dilate what follows by two instead.

    Every convolution then sees the same neighbours as before ("atrous", arXiv:1706.05587,
    section 3.1), so pretrained weights keep their meaning.
    """
    for layer in blocks.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1):
            if layer.stride == (2, 2):
                layer.stride = (1, 1)
            else:
                layer.dilation = (2 * layer.dilation[0], 2 * layer.dilation[1])
                layer.padding = tuple(2 * int(pixels) for pixels in layer.padding)


def _quicken_running_statistics(network: nn.Module) -> None:
    """PyTorch's usual momentum of 0.1 in every BatchNorm of a network trained from scratch.

    torchvision gives MobileNetV3 0.01: the running statistics, which evaluation uses, then still
    hold much of their initial values after hundreds of steps, and small data sets have few steps.
    """
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.1


class ImagePoolingNorm(nn.BatchNorm2d):
    """BatchNorm of ASPP's image-pooling branch, where each image has one value per channel.

    A batch of one image has no variance there and PyTorch refuses it in training mode; such a
    batch is normalised by the running statistics, as in evaluation.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and x.shape[0] == 1:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)


def _accept_one_image(network: nn.Module) -> None:
    for layer in network.modules():
        if isinstance(layer, ASPPPooling):
            layer[2] = ImagePoolingNorm(layer[2].num_features)
