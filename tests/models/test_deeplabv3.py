"""Tests of DeepLabV3 against torchvision's networks, and of its variants."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v3_large
from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large, deeplabv3_resnet50

from heartseg.errors import InputError
from heartseg.models import build_network
from heartseg.models.deeplabv3 import atrous_rates


@pytest.mark.slow
def test_equals_torchvisions_resnet_at_stride_8(configure, tmp_path):
    theirs = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=3, aux_loss=True)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    config = configure(
        "deeplabv3",
        in_channels=3,
        backbone="resnet50",
        output_stride=8,
        decoder_skip=False,
        auxiliary=True,
        weights=str(tmp_path / "weights.pth"),
    )
    ours = build_network(config, 3)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    images = torch.randn(1, 3, 50, 65)
    ours.eval()
    theirs.eval()
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images)["out"])
        ours.train()
        theirs.train()
        for dropout in [m for n in (ours, theirs) for m in n.modules() if type(m) is nn.Dropout]:
            dropout.eval()
        images = torch.randn(2, 3, 50, 65)
        logits, auxiliary = ours(images)
        expected = theirs(images)
    torch.testing.assert_close(logits, expected["out"])
    torch.testing.assert_close(auxiliary, expected["aux"])


def test_equals_torchvisions_mobilenet(configure, tmp_path):
    torch.manual_seed(1)
    theirs = deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3).eval()
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    same = {"in_channels": 3, "decoder_skip": False, "weights": str(tmp_path / "weights.pth")}
    ours = build_network(configure("deeplabv3", atrous_rates=[12, 24, 36], **same), 3).eval()
    images = torch.randn(1, 3, 224, 190)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images)["out"])
    with pytest.raises(InputError, match="atrous_rates"):
        build_network(configure("deeplabv3", **same), 3)


@pytest.mark.parametrize(
    ("backbone", "stride", "weights", "expected"),
    [
        ("mobilenet_v3_large", 16, None, (6, 12, 18)),
        ("mobilenet_v3_large", 16, "COCO_WITH_VOC_LABELS_V1", (12, 24, 36)),
        ("mobilenet_v3_large", 8, "COCO_WITH_VOC_LABELS_V1", (24, 48, 72)),
        ("resnet50", 8, "COCO_WITH_VOC_LABELS_V1", (12, 24, 36)),
        ("resnet50", 16, None, (6, 12, 18)),
    ],
)
def test_dilations_fit_the_weights(configure, backbone, stride, weights, expected):
    config = configure("deeplabv3", backbone=backbone, output_stride=stride, weights=weights)
    assert atrous_rates(config) == expected
    # A trained model is rebuilt without pretrained weights, but with the same dilations.
    aspp = build_network(config, 2, pretrained=False).classifier["0"]
    assert tuple(branch[0].dilation[0] for branch in list(aspp.convs)[1:4]) == expected


@pytest.mark.parametrize("backbone", ["resnet50", "mobilenet_v3_large"])
@pytest.mark.parametrize("stride", [8, 16])
def test_output_stride(configure, backbone, stride):
    config = configure("deeplabv3", backbone=backbone, output_stride=stride)
    features = build_network(config, 2).backbone.eval()(torch.randn(1, 1, 128, 96))
    assert features["out"].shape[-2:] == (128 // stride, 96 // stride)
    assert features["low"].shape[-2:] == (32, 24)


def test_dilation_replaces_the_stride(configure):
    """At every second pixel, the features of stride 8 equal those of stride 16."""
    coarse = build_network(configure("deeplabv3", output_stride=16), 2).eval().backbone
    fine = build_network(configure("deeplabv3", output_stride=8), 2).eval().backbone
    fine.load_state_dict(coarse.state_dict())
    x = y = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        for name in map(str, range(11)):  # up to the first squeeze & excitation
            x, y = coarse[name](x), fine[name](y)
    assert y.shape[-1] == 2 * x.shape[-1]
    torch.testing.assert_close(y[..., ::2, ::2], x, rtol=1e-4, atol=1e-5)


def test_auxiliary_logits_in_training_only(configure):
    network = build_network(configure("deeplabv3", auxiliary=True), 3)
    images = torch.randn(2, 1, 64, 80)
    logits, auxiliary = network(images)
    assert logits.shape == auxiliary.shape == (2, 3, 64, 80)
    auxiliary.sum().backward()
    assert network.backbone["4"].block[0][0].weight.grad.any()
    network.eval()
    assert torch.is_tensor(network(images))


def test_batch_norm_momentum_is_raised_only_without_pretrained_weights(configure, tmp_path):
    torch.save(mobilenet_v3_large(weights=None).state_dict(), tmp_path / "backbone.pth")

    def norms(**values):
        network = build_network(configure("deeplabv3", **values), 2)
        return [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]

    assert {norm.momentum for norm in norms()} == {0.1}
    pretrained = norms(backbone_weights=str(tmp_path / "backbone.pth"))
    assert {norm.momentum for norm in pretrained} == {0.1, 0.01}
    assert {norm.eps for norm in norms()} == {norm.eps for norm in pretrained} == {0.001, 1e-5}


def test_a_batch_of_one_is_normalised_by_running_statistics(configure):
    pooling = build_network(configure("deeplabv3"), 2).classifier["0"].convs[-1]
    norm = pooling[2]
    norm.running_mean.fill_(2.0)
    norm.running_var.fill_(4.0)
    x = torch.full((1, 256, 1, 1), 6.0)
    torch.testing.assert_close(norm(x), torch.full_like(x, 2.0), rtol=1e-4, atol=0)
    assert norm(x.repeat(2, 1, 1, 1)).abs().max() < 1e-3  # two equal images: their own mean
