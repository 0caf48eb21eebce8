"""Trained weights into a DeepLabV3 or QuickNAT, from torchvision by name or from a file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torchvision.models import get_model_weights

from heartseg.errors import InputError

StateDict = dict[str, torch.Tensor]


def load_segmentation_weights(network: nn.Module, backbone: str, source: str) -> None:
    """Load a whole DeepLabV3: torchvision's or one of heartseg's own.

    Backbone and ASPP must fit. What stands behind them is loaded where it fits and otherwise left
    at its initialisation: another number of classes, another kind of head, the auxiliary head.

    Args:
        network: a DeepLabV3, changed in place.
        backbone: torchvision's name of the backbone.
        source: a torchvision weight name or a path, see `read_weights`.

    Raises:
        InputError: the weights cannot be read or do not fit.
    """
    required = ("backbone.", "classifier.0.")
    _load(network, read_weights(source, f"deeplabv3_{backbone}"), required, source)


def load_backbone_weights(network: nn.Module, backbone: str, source: str) -> None:
    """Load the backbone from a classification network; arguments and errors as above."""
    if backbone == "mobilenet_v3_large":
        prefix, ignored = "features.", "classifier."
    else:
        prefix, ignored = "", "fc."
    state = {
        f"backbone.{key.removeprefix(prefix)}": value
        for key, value in read_weights(source, backbone).items()
        if not key.startswith(ignored)
    }
    _load(network, state, ("backbone.",), source)


def load_quicknat_weights(network: nn.Module, source: str) -> None:
    """Load a whole QuickNAT of heartseg's own from a .safetensors or .pth file.

    All but the classifier must fit; that is left at its initialisation where it was trained for
    another number of structures.

    Args:
        network: a QuickNAT, changed in place.
        source: path of the file.

    Raises:
        InputError: the weights cannot be read or do not fit.
    """
    if not Path(source).is_file():
        raise InputError(
            f"{source}: no such file. Give weights.safetensors of a trained model's folder, such "
            "as results/mmode/model, or a state dict."
        )
    _load(network, _read_file(Path(source)), ("encoders.", "bottleneck.", "decoders."), source)


def read_weights(source: str, model: str) -> StateDict:
    """A state dict from a .safetensors or .pth file, or from torchvision by name.

    Args:
        source: path of a file, or a name such as "ResNet50_Weights.IMAGENET1K_V2".
        model: torchvision's name of the model whose weight names are understood.

    Raises:
        InputError: neither a file nor such a name, no state dict, or the download fails.
    """
    if Path(source).is_file():
        return _read_file(Path(source))
    names = get_model_weights(model)
    name = source.removeprefix(f"{names.__name__}.")
    if name not in names.__members__:
        known = ", ".join(str(weights) for weights in names)
        raise InputError(f"{source}: no such file, and no weights of {model}; known: {known}")
    try:
        return names[name].get_state_dict(check_hash=True)
    except OSError as error:
        raise InputError(
            f"{source}: cannot download {names[name].url}: {error}. Download it on a machine "
            "with a network and give the path of the file instead."
        ) from None


def _read_file(path: Path) -> StateDict:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format raises errors of its own
        raise InputError(f"{path} cannot be read as weights: {error}") from None
    if not isinstance(state, dict) or not all(torch.is_tensor(value) for value in state.values()):
        raise InputError(f"{path} is no state dict (names and tensors); save model.state_dict()")
    return state


def _load(network: nn.Module, state: StateDict, required: tuple[str, ...], source: str) -> None:
    own = network.state_dict()
    first = next(key for key, value in own.items() if value.ndim == 4)  # the first convolution
    if first in state:
        state = {**state, first: _for_channels(state[first], own[first].shape[1])}

    fitting = {key for key in own if key in state and state[key].shape == own[key].shape}
    wrong = [
        f"{key} is {_shape(state.get(key))}, needed {_shape(own.get(key))}"
        for key in [*own, *(key for key in state if key not in own)]
        if key.startswith(required)
        and key not in fitting
        and not key.endswith("num_batches_tracked")  # absent from old files, and of no effect
    ]
    if wrong:
        raise InputError(
            f"{source} does not fit the network in {len(wrong)} places: {'; '.join(wrong[:3])}. "
            "Check the recipe's model."
        )
    network.load_state_dict({key: state[key] for key in fitting}, strict=False)


def _for_channels(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """A first convolution's weight (out, in, h, w) for another number of input channels.

    It answers to equal channels as the original does to equal channels.
    """
    if weight.ndim != 4 or weight.shape[1] == channels:
        return weight
    return (weight.sum(dim=1, keepdim=True) / channels).repeat(1, channels, 1, 1)


def _shape(tensor: torch.Tensor | None) -> str:
    return "absent" if tensor is None else str(tuple(tensor.shape))
