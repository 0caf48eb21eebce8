"""Configurations of the networks for tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from heartseg.config.recipe import (
    DeepLabV3Config,
    DynUNetConfig,
    ModelConfig,
    QuickNATConfig,
    UNetConfig,
)

CONFIGS: dict[str, ModelConfig] = {
    "deeplabv3": DeepLabV3Config(
        name="deeplabv3",
        in_channels=1,
        backbone="mobilenet_v3_large",
        output_stride=16,
        decoder_skip=True,
        auxiliary=False,
        weights=None,
        backbone_weights=None,
    ),
    "quicknat": QuickNATConfig(
        name="quicknat",
        in_channels=1,
        filters=8,
        kernel=5,
        squeeze_excite="both",
        dropout=0.1,
        weights=None,
    ),
    "unet": UNetConfig(
        name="unet", in_channels=1, channels=[4, 8, 16], residual_units=2, dropout=0.1
    ),
    "dynunet": DynUNetConfig(name="dynunet", in_channels=1, filters=[4, 8, 16], dropout=0.1),
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=CONFIGS)
def any_config(request: pytest.FixtureRequest) -> ModelConfig:
    """Return the configuration of each network in turn."""
    return CONFIGS[request.param]


@pytest.fixture
def configure() -> Callable[..., ModelConfig]:
    """Return a function that changes values of a configuration: configure("unet", dropout=0)."""

    def change(name: str, **values: object) -> ModelConfig:
        config = CONFIGS[name]
        return type(config).model_validate({**config.model_dump(), **values})

    return change
