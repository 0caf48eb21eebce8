"""Tests of loading pretrained weights from files and from torchvision."""

from __future__ import annotations

from urllib.error import URLError

import pytest
import torch
from torchvision.models import mobilenet_v3_large
from torchvision.models._api import WeightsEnum
from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

from heartseg.errors import InputError
from heartseg.models import build_network
from heartseg.models.trained import save_trained
from tests.examples import small_recipe, training_record

pytestmark = pytest.mark.slow

ASPP = "classifier.0.project.0.weight"


@pytest.fixture(scope="module")
def segmentation():
    torch.manual_seed(1)
    return deeplabv3_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=5, aux_loss=True
    ).state_dict()


@pytest.fixture
def segmentation_file(segmentation, tmp_path):
    torch.save(segmentation, tmp_path / "segmentation.pth")
    return str(tmp_path / "segmentation.pth")


def test_one_channel_gives_the_output_of_three_equal_ones(configure, tmp_path):
    theirs = mobilenet_v3_large(weights=None).eval()
    torch.save(theirs.state_dict(), tmp_path / "backbone.pth")
    config = configure("deeplabv3", backbone_weights=str(tmp_path / "backbone.pth"))
    image = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        low = build_network(config, 2).eval().backbone(image)["low"]
        expected = theirs.features[:4](image.repeat(1, 3, 1, 1))
        torch.testing.assert_close(low, expected)
        config = config.model_copy(update={"in_channels": 5})
        low = build_network(config, 2).eval().backbone(image.repeat(1, 5, 1, 1))["low"]
        torch.testing.assert_close(low, expected)


@pytest.mark.parametrize("skip", [False, True])
def test_layers_after_aspp_may_differ(configure, segmentation, segmentation_file, skip):
    config = configure(
        "deeplabv3",
        atrous_rates=[12, 24, 36],
        decoder_skip=skip,
        auxiliary=True,
        weights=segmentation_file,
    )
    fresh = build_network(config, 4, pretrained=False).state_dict()
    loaded = build_network(config, 4).state_dict()
    for key in (ASPP, "backbone.13.block.1.0.weight"):
        assert torch.equal(loaded[key], segmentation[key])
        assert not torch.equal(loaded[key], fresh[key])
    if not skip:  # the same head except for the number of classes
        assert torch.equal(loaded["classifier.1.weight"], segmentation["classifier.1.weight"])
        assert loaded["classifier.4.weight"].shape == (4, 256, 1, 1)


def test_own_weights_are_loaded_completely(configure, tmp_path):
    network = build_network(configure("deeplabv3"), 4)
    torch.save(network.state_dict(), tmp_path / "own.pth")
    again = build_network(
        configure("deeplabv3", atrous_rates=[12, 24, 36], weights=str(tmp_path / "own.pth")), 4
    )
    for key, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def test_safetensors(configure, segmentation, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    path = tmp_path / "weights.safetensors"
    safetensors.save_file(segmentation, path)
    network = build_network(configure("deeplabv3", atrous_rates=[12, 24, 36], weights=str(path)), 4)
    assert torch.equal(network.state_dict()[ASPP], segmentation[ASPP])


def test_tensors_that_do_not_fit_are_reported(configure, segmentation, tmp_path):
    wrong = {
        **{key: value for key, value in segmentation.items() if key != ASPP},
        "backbone.5.block.0.0.weight": torch.zeros(7, 40, 1, 1),
        "backbone.99.weight": torch.zeros(1),
    }
    path = tmp_path / "wrong.pth"
    torch.save(wrong, path)
    with pytest.raises(InputError) as caught:
        build_network(configure("deeplabv3", atrous_rates=[12, 24, 36], weights=str(path)), 4)
    message = str(caught.value)
    assert str(path) in message
    assert "3 tensors" in message
    assert "backbone.5.block.0.0.weight is (7, 40, 1, 1), expected (120, 40, 1, 1)" in message
    assert f"{ASPP} is absent, expected (256, 1280, 1, 1)" in message
    assert "backbone.99.weight is (1,), expected absent" in message


@pytest.mark.parametrize("content", [b"", b"no weights at all"])
def test_a_file_without_weights(configure, tmp_path, content):
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.pth cannot be read"):
        build_network(configure("deeplabv3", backbone_weights=str(path)), 4)


def test_a_checkpoint_without_a_state_dict(configure, tmp_path):
    torch.save({"epoch": 3, "model": {}}, tmp_path / "checkpoint.pth")
    with pytest.raises(InputError, match="no state dict"):
        build_network(
            configure(
                "deeplabv3", atrous_rates=[12, 24, 36], weights=str(tmp_path / "checkpoint.pth")
            ),
            4,
        )


def test_training_starts_from_a_trained_quicknat(configure, params, tmp_path):
    """Weights of a model folder fit a network with the same or another number of labels."""
    trained = build_network(configure("quicknat"), 1)
    recipe = small_recipe(params)
    save_trained(tmp_path / "model", trained.state_dict(), training_record(recipe))
    path = str(tmp_path / "model/weights.safetensors")
    again = build_network(configure("quicknat", weights=path), 1).state_dict()
    fresh = build_network(configure("quicknat", weights=path), 1, pretrained=False).state_dict()
    for key, value in trained.state_dict().items():
        assert torch.equal(again[key], value), key
    assert not torch.equal(fresh["classifier.weight"], again["classifier.weight"])
    wider = build_network(configure("quicknat", weights=path), 4).state_dict()
    key = "encoders.0.0.convolutions.0.weight"
    assert torch.equal(wider[key], trained.state_dict()[key])
    assert wider["classifier.weight"].shape[0] == 4


def test_weights_of_another_quicknat_do_not_fit(configure, tmp_path):
    torch.save(build_network(configure("quicknat"), 1).state_dict(), tmp_path / "own.pth")
    with pytest.raises(InputError, match=r"own\.pth: \d+ tensors"):
        build_network(configure("quicknat", filters=4, weights=str(tmp_path / "own.pth")), 1)
    with pytest.raises(InputError, match=r"absent\.pth"):
        build_network(configure("quicknat", weights="absent.pth"), 1)


def test_an_unknown_name_lists_the_known_ones(configure):
    with pytest.raises(InputError, match=r"MobileNet_V3_Large_Weights\.IMAGENET1K_V2"):
        build_network(configure("deeplabv3", backbone_weights="IMAGENET1K_V9"), 4)


def test_no_internet_access(configure, monkeypatch):
    def fail(self, **arguments):
        raise URLError("no route to host")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fail)
    config = configure("deeplabv3", backbone_weights="MobileNet_V3_Large_Weights.IMAGENET1K_V2")
    with pytest.raises(InputError, match=r"cannot download https://.*no route to host"):
        build_network(config, 4)
    build_network(config, 4, pretrained=False)  # needs no download
