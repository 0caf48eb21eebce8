"""Recipes: everything that defines a training, as typed, validated objects.

Every configured value has its one default in params.yaml; the classes below carry none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from heartseg.datasets import DATASETS
from heartseg.errors import InputError

DatasetName = Literal["camus", "mmode", "mmode-quality"]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
# A recipe may come with somebody else's model: what it builds, and takes to run, is bounded.
Channels = Annotated[int, Field(ge=1, le=4096)]
InChannels = Annotated[int, Field(ge=1, le=256)]
MOST_LEVELS = 12
Seed = Annotated[int, Field(ge=0, lt=2**31)]

WEIGHTS_FIELDS = ("weights", "backbone_weights")
"""Of a model: where trained weights to start from are."""


class Section(BaseModel):
    """A part of params.yaml: unknown keys are refused, values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


# --- models -------------------------------------------------------------------------------


class DeepLabV3Config(Section):
    """DeepLabV3 (Chen et al. 2017, arXiv:1706.05587), from torchvision."""

    name: Literal["deeplabv3"]
    in_channels: InChannels
    backbone: Literal["resnet50", "resnet101", "mobilenet_v3_large"]
    output_stride: Literal[8, 16]
    """Input size over the size of the last feature map."""
    atrous_rates: Literal["auto"] | Annotated[list[Channels], Field(min_length=3, max_length=3)]
    """Dilations of ASPP. auto: 6, 12, 18 at output stride 16, as in the paper, or those that
    torchvision's weights of that name were trained with; doubled at stride 8. For weights of a
    MobileNet from a file they must be given: torchvision's expect 12, 24, 36."""
    decoder_skip: bool
    """Join low-level features before the classifier, as DeepLabV3+ (arXiv:1802.02611) does."""
    auxiliary: bool
    """Auxiliary head on an inner feature map while training."""
    weights: str | None
    """Full segmentation weights: a torchvision weight name or a file."""
    backbone_weights: str | None
    """Backbone weights: a torchvision weight name or a file."""

    @model_validator(mode="before")
    @classmethod
    def _of_older_models(cls, values: Any) -> Any:
        """Read recipes that models were registered with before there was `atrous_rates`."""
        return {"atrous_rates": "auto"} | values if isinstance(values, dict) else values


class QuickNATConfig(Section):
    """QuickNAT (Roy et al., NeuroImage 186, 2019)."""

    name: Literal["quicknat"]
    in_channels: InChannels
    filters: Channels
    kernel: Literal[3, 5, 7]
    squeeze_excite: Literal["none", "channel", "spatial", "both"]
    dropout: Fraction
    weights: str | None
    """Trained weights to start from: weights.safetensors of a model's folder, or a state dict."""


class UNetConfig(Section):
    """MONAI's residual U-Net (Kerfoot et al., STACOM 2018)."""

    name: Literal["unet"]
    in_channels: InChannels
    channels: Annotated[list[Channels], Field(min_length=2, max_length=MOST_LEVELS)]
    residual_units: Annotated[int, Field(ge=0, le=32)]
    dropout: Fraction


class DynUNetConfig(Section):
    """MONAI's DynUNet, the network of nnU-Net (Isensee et al., Nature Methods 2021)."""

    name: Literal["dynunet"]
    in_channels: InChannels
    filters: Annotated[list[Channels], Field(min_length=3, max_length=MOST_LEVELS)]
    dropout: Fraction


class WindowCNNConfig(Section):
    """A small convolutional network that decides about a window as a whole: mmode-quality."""

    name: Literal["window_cnn"]
    in_channels: InChannels
    filters: Annotated[list[Channels], Field(min_length=1, max_length=MOST_LEVELS)]
    """Of each block, which halves the resolution."""
    dropout: Fraction


ModelConfig = Annotated[
    DeepLabV3Config | QuickNATConfig | UNetConfig | DynUNetConfig | WindowCNNConfig,
    Field(discriminator="name"),
]


def _named(name: str) -> BeforeValidator:
    """Let the key of a section of `model_defaults` stand for the model's `name`."""
    return BeforeValidator(lambda v: {"name": name} | v if isinstance(v, dict) else v)


class ModelDefaults(Section):
    """What the recipes of a network share; a recipe's `model` may set any of it anew."""

    deeplabv3: Annotated[DeepLabV3Config, _named("deeplabv3")]
    quicknat: Annotated[QuickNATConfig, _named("quicknat")]
    unet: Annotated[UNetConfig, _named("unet")]
    dynunet: Annotated[DynUNetConfig, _named("dynunet")]
    window_cnn: Annotated[WindowCNNConfig, _named("window_cnn")]


# --- training -----------------------------------------------------------------------------


class Augment(Section):
    """Random changes of a training batch; a range of 0 turns one off."""

    probability: Fraction
    """Probability that an image gets each of the changes below."""
    flip_left_right: bool
    """Mirror one of two images that get it, so half of them at probability 1. Anatomically wrong
    for apical views: it swaps septum and lateral wall."""
    rotate_degrees: Annotated[float, Field(ge=0, le=180)]
    scale: Annotated[float, Field(ge=0, lt=1)]
    """Zoom by a factor within 1 ± scale."""
    shift: Annotated[float, Field(ge=0, lt=1)]
    """Translation within ± shift of the image's size."""
    brightness: Annotated[float, Field(ge=0, lt=1)]
    contrast: Annotated[float, Field(ge=0, lt=1)]
    gamma: Annotated[float, Field(ge=0, lt=1)]
    speckle: Annotated[float, Field(ge=0, lt=1)]
    """Standard deviation of multiplicative noise."""
    blur: Annotated[float, Field(ge=0)]
    """Largest standard deviation of a Gaussian blur, in pixels."""


class RecipeDefaults(Section):
    """What recipes share: `recipe_defaults` in params.yaml. A recipe may set any of it anew."""

    eval_batch_size: Count
    """Images per step while validating."""
    optimizer: Literal["adamw", "sgd"]
    momentum: Fraction
    """SGD only."""
    weight_decay: Annotated[float, Field(ge=0)]
    schedule: Literal["onecycle", "cosine", "poly", "constant"]
    warmup_fraction: Fraction
    """Fraction of all steps in which the learning rate rises (not for constant)."""
    early_stopping: Annotated[int, Field(ge=0)]
    """Stop after so many epochs without a better validation Dice; 0 never stops early."""
    select: Literal["best", "last"]
    """The epoch that becomes the model: best validation Dice, or the last one."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    """Decay per step of the exponential moving average of the weights; 0 = none."""
    loss: Literal["ce_dice", "one_vs_rest_bce"]
    class_weights: list[Positive] | None
    """One weight per label (background first), or null. The loss of each pixel is multiplied by
    its label's weight and not divided by the sum of the weights, as torch does: weights of a mean
    above 1 therefore also raise the whole loss, and act like a higher learning rate. In ce_dice
    they weigh the cross-entropy only."""
    augment: Augment
    precision: Literal["auto", "fp32", "bf16"]
    """auto: bf16 on a GPU, fp32 on CPU."""
    channels_last: bool
    """Memory layout of images and convolutions; faster on most hardware."""
    compile: bool
    """Compile the network with torch.compile."""
    seed: Seed


class Recipe(RecipeDefaults):
    """Everything that defines a training."""

    dataset: DatasetName
    model: ModelConfig
    input_size: Annotated[int, Field(ge=32, le=2048)]
    """Rows and columns that the network sees, in pixels."""
    batch_size: Count
    """Images per optimizer step over all workers; each worker's share is derived."""
    learning_rate: Positive
    epochs: Count

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        labels = len(DATASETS[self.dataset].labels)
        if self.class_weights is not None and len(self.class_weights) != labels:
            raise ValueError(f"class_weights: {self.dataset} has {labels} labels")
        whole = isinstance(self.model, WindowCNNConfig)
        if whole != DATASETS[self.dataset].classifies:
            raise ValueError(f"{self.model.name} is no network for {self.dataset}")
        if whole and (self.augment.rotate_degrees or self.augment.scale or self.augment.shift):
            raise ValueError("window_cnn: set rotate_degrees, scale and shift of augment to 0")
        return self

    def weight_files(self) -> list[Path]:
        """The files of trained weights that the training starts from."""
        names = [getattr(self.model, key, None) for key in WEIGHTS_FIELDS]
        return [Path(name) for name in names if name is not None and Path(name).is_file()]

    def worker_batch(self, workers: int) -> int:
        """Images per step and worker.

        Raises:
            InputError: the global batch size cannot be shared equally.
        """
        share, rest = divmod(self.batch_size, workers)
        if rest:
            near = [n for n in range(1, self.batch_size + 1) if self.batch_size % n == 0]
            raise InputError(
                f"batch_size {self.batch_size} cannot be shared equally by {workers} workers; "
                f"take a multiple of {workers}, or one of {near} workers"
            )
        return share
