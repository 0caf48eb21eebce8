"""Recipes: everything that defines a training, as typed, validated objects.

All defaults are in params.yaml. The classes contain none.
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
# A recipe may come with a model from somebody else, so the size of its network is limited.
Channels = Annotated[int, Field(ge=1, le=4096)]
InChannels = Annotated[int, Field(ge=1, le=256)]
MAX_LEVELS = 12
Seed = Annotated[int, Field(ge=0, lt=2**31)]

WEIGHTS_FIELDS = ("weights", "backbone_weights")
"""Fields of a model that name trained weights to start from."""


class Section(BaseModel):
    """A section of a configuration file. It is immutable and rejects unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


# --- models -------------------------------------------------------------------------------


class DeepLabV3Config(Section):
    """DeepLabV3 (Chen et al. 2017, arXiv:1706.05587), from torchvision."""

    name: Literal["deeplabv3"]
    """Selects this network."""
    in_channels: InChannels
    """Input channels. 1 and 3 take one grey frame (3 repeat it, as weights for colour images
    expect); any other number takes as many frames (`datasets.camus.frames`)."""
    backbone: Literal["resnet50", "resnet101", "mobilenet_v3_large"]
    """The network that extracts features."""
    output_stride: Literal[8, 16]
    """Input size divided by the size of the last feature map. 8 is finer, slower and needs more
    memory."""
    atrous_rates: Literal["auto"] | Annotated[list[Channels], Field(min_length=3, max_length=3)]
    """Dilations of the three 3x3 convolutions of ASPP. auto: 6, 12, 18 at output stride 16, as in
    the paper, or those of torchvision's weights if `weights` names them; doubled at stride 8.
    Required for MobileNet weights from a file: torchvision's need 12, 24, 36."""
    decoder_skip: bool
    """Join low-level features before the classifier, as DeepLabV3+ (arXiv:1802.02611) does."""
    auxiliary: bool
    """Train a second classifier on an inner feature map. Its loss is added with a weight of 0.5."""
    weights: str | None
    """Weights of the whole network to start from: a torchvision weight name or a file; null:
    none."""
    backbone_weights: str | None
    """Weights of the backbone to start from: a torchvision weight name or a file; null: none.
    Ignored if `weights` is set."""

    @model_validator(mode="before")
    @classmethod
    def _add_missing_rates(cls, values: Any) -> Any:
        """Accept recipes of models that were registered before `atrous_rates` existed."""
        return {"atrous_rates": "auto"} | values if isinstance(values, dict) else values


class QuickNATConfig(Section):
    """QuickNAT (Roy et al., NeuroImage 186, 2019)."""

    name: Literal["quicknat"]
    """Selects this network."""
    in_channels: InChannels
    """Input channels; see `deeplabv3`."""
    filters: Channels
    """Channels of every convolution; 64 in the paper."""
    kernel: Literal[3, 5, 7]
    """Side of the dense blocks' convolution kernels in pixels; 5 in the paper."""
    squeeze_excite: Literal["none", "channel", "spatial", "both"]
    """Recalibration of feature maps after each encoder and decoder: weights per channel, per pixel,
    or the greater result of both."""
    dropout: Fraction
    """Probability that a channel is set to 0 after each encoder and decoder during training."""
    weights: str | None
    """Weights to start from: weights.safetensors of a model's folder, or a file with a state dict.
    null: none."""


class UNetConfig(Section):
    """MONAI's residual U-Net (Kerfoot et al., STACOM 2018)."""

    name: Literal["unet"]
    """Selects this network."""
    in_channels: InChannels
    """Input channels; see `deeplabv3`."""
    channels: Annotated[list[Channels], Field(min_length=2, max_length=MAX_LEVELS)]
    """Channels of each level. The resolution is halved between two levels."""
    residual_units: Annotated[int, Field(ge=0, le=32)]
    """Convolutions in each level's residual unit; 0: plain convolutions."""
    dropout: Fraction
    """Probability that an activation is set to 0 during training."""


class DynUNetConfig(Section):
    """MONAI's DynUNet, the network of nnU-Net (Isensee et al., Nature Methods 2021)."""

    name: Literal["dynunet"]
    """Selects this network."""
    in_channels: InChannels
    """Input channels; see `deeplabv3`."""
    filters: Annotated[list[Channels], Field(min_length=3, max_length=MAX_LEVELS)]
    """Channels of each level. The resolution is halved between two levels."""
    dropout: Fraction
    """Probability that an activation is set to 0 during training."""


class WindowCNNConfig(Section):
    """A small convolutional network that classifies a whole window (mmode-quality)."""

    name: Literal["window_cnn"]
    """Selects this network."""
    in_channels: InChannels
    """Input channels; see `deeplabv3`."""
    filters: Annotated[list[Channels], Field(min_length=1, max_length=MAX_LEVELS)]
    """Channels of each block. Each block halves the resolution."""
    dropout: Fraction
    """Probability that a pooled feature is set to 0 during training."""


ModelConfig = Annotated[
    DeepLabV3Config | QuickNATConfig | UNetConfig | DynUNetConfig | WindowCNNConfig,
    Field(discriminator="name"),
]


def _with_name(name: str) -> BeforeValidator:
    """Set the model's `name` to the key of its section in `model_defaults`."""
    return BeforeValidator(lambda v: {"name": name} | v if isinstance(v, dict) else v)


class ModelDefaults(Section):
    """Values that recipes with the same network share. A recipe's `model` may override each."""

    deeplabv3: Annotated[DeepLabV3Config, _with_name("deeplabv3")]
    """Defaults of DeepLabV3."""
    quicknat: Annotated[QuickNATConfig, _with_name("quicknat")]
    """Defaults of QuickNAT."""
    unet: Annotated[UNetConfig, _with_name("unet")]
    """Defaults of the residual U-Net."""
    dynunet: Annotated[DynUNetConfig, _with_name("dynunet")]
    """Defaults of DynUNet."""
    window_cnn: Annotated[WindowCNNConfig, _with_name("window_cnn")]
    """Defaults of the classifier of windows."""


# --- training -----------------------------------------------------------------------------


class Augment(Section):
    """Random changes of the training images. A value of 0 turns a change off."""

    probability: Fraction
    """Probability that an image gets a change, drawn separately for each change."""
    flip_left_right: bool
    """Mirror left and right. Of the images that get this change, one half is mirrored. Wrong for
    apical views, because it swaps septum and lateral wall."""
    rotate_degrees: Annotated[float, Field(ge=0, le=180)]
    """Rotate by an angle within ± rotate_degrees."""
    scale: Annotated[float, Field(ge=0, lt=1)]
    """Enlarge by a factor within 1 ± scale."""
    shift: Annotated[float, Field(ge=0, lt=1)]
    """Shift along both axes within ± shift, as a fraction of the image's size."""
    brightness: Annotated[float, Field(ge=0, lt=1)]
    """Multiply all grey values by a factor within 1 ± brightness."""
    contrast: Annotated[float, Field(ge=0, lt=1)]
    """Multiply the differences from the mean grey value by a factor within 1 ± contrast."""
    gamma: Annotated[float, Field(ge=0, lt=1)]
    """Raise the grey values, scaled to 0..1, to a power within 1 ± gamma."""
    speckle: Annotated[float, Field(ge=0, lt=1)]
    """Standard deviation of multiplicative Gaussian noise."""
    blur: Annotated[float, Field(ge=0)]
    """Maximum standard deviation of a Gaussian blur, in pixels of the network's input."""


class RecipeDefaults(Section):
    """Values that recipes share: `recipe_defaults` in params.yaml. A recipe may override each."""

    eval_batch_size: Count
    """Images per step during validation. It affects memory and speed only."""
    optimizer: Literal["adamw", "sgd"]
    """AdamW, or stochastic gradient descent with momentum."""
    momentum: Fraction
    """Momentum of SGD. AdamW ignores it."""
    weight_decay: Annotated[float, Field(ge=0)]
    """Decoupled weight decay of AdamW, or L2 penalty of SGD. Biases and normalisation layers are
    not decayed."""
    schedule: Literal["onecycle", "cosine", "poly", "constant"]
    """Course of the learning rate over all steps. All but constant rise to `learning_rate` during
    the warm-up and then fall towards 0."""
    warmup_fraction: Fraction
    """Fraction of all steps in which the learning rate rises (not for constant)."""
    early_stopping: Annotated[int, Field(ge=0)]
    """Number of epochs without a better validation Dice after which training stops; 0: never."""
    select: Literal["best", "last"]
    """The epoch that becomes the model: the one with the best validation Dice, or the last one."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    """Decay per step of the exponential moving average of the weights, which is validated and
    becomes the model; 0: no average."""
    loss: Literal["ce_dice", "one_vs_rest_bce"]
    """ce_dice: cross-entropy plus soft Dice; one_vs_rest_bce: binary cross-entropy with one sigmoid
    per label."""
    class_weights: list[Positive] | None
    """One weight per label (background first); null: all 1. The loss of each pixel is multiplied by
    the weight of its label. Unlike in torch, it is not divided by the sum of the weights: a mean
    weight above 1 raises the whole loss, like a higher learning rate. In ce_dice the weights apply
    to the cross-entropy only."""
    augment: Augment
    """Random changes of the training images."""
    precision: Literal["auto", "fp32", "bf16"]
    """Floating-point type of the network's computations. auto: bf16 on a GPU, fp32 on a CPU."""
    channels_last: bool
    """Memory layout of images and convolutions. true is faster on most hardware."""
    compile: bool
    """Compile the network with torch.compile."""
    seed: Seed
    """Seed of the initial weights, the order of the images, augmentation and dropout."""


class Recipe(RecipeDefaults):
    """Everything that defines a training."""

    dataset: DatasetName
    """The prepared dataset to train on."""
    model: ModelConfig
    """The network: its name, and what differs from `model_defaults`."""
    input_size: Annotated[int, Field(ge=32, le=2048)]
    """Rows and columns of the network's input in pixels. Images are resized to it."""
    batch_size: Count
    """Images per optimizer step over all workers. Each worker gets an equal share."""
    learning_rate: Positive
    """Highest learning rate of the schedule."""
    epochs: Count
    """Number of passes over the training images."""

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        labels = len(DATASETS[self.dataset].labels)
        if self.class_weights is not None and len(self.class_weights) != labels:
            raise ValueError(f"class_weights: {self.dataset} has {labels} labels")
        classifies = isinstance(self.model, WindowCNNConfig)
        if classifies != DATASETS[self.dataset].classifies:
            raise ValueError(f"model {self.model.name} does not fit dataset {self.dataset}")
        if classifies and (self.augment.rotate_degrees or self.augment.scale or self.augment.shift):
            raise ValueError("window_cnn: set rotate_degrees, scale and shift of augment to 0")
        return self

    def weight_files(self) -> list[Path]:
        """Return the files of trained weights that the training starts from."""
        names = [getattr(self.model, key, None) for key in WEIGHTS_FIELDS]
        return [Path(name) for name in names if name is not None and Path(name).is_file()]

    def worker_batch(self, workers: int) -> int:
        """Return the number of images per step and worker.

        Raises:
            InputError: The workers cannot share the global batch equally.
        """
        share, rest = divmod(self.batch_size, workers)
        if rest:
            divisors = [n for n in range(1, self.batch_size + 1) if self.batch_size % n == 0]
            raise InputError(
                f"{workers} workers cannot share batch_size {self.batch_size} equally; set it to a "
                f"multiple of {workers}, or the number of workers to one of {divisors}"
            )
        return share
