"""Load pretrained weights into a network, from torchvision by name or from a file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torchvision.models import get_model_weights

from heartseg.errors import InputError

StateDict = dict[str, torch.Tensor]


def load_segmentation_weights(network: nn.Module, backbone: str, source: str) -> None:
    """Load the weights of a DeepLabV3 of torchvision or heartseg.

    Backbone and ASPP must fit. The other layers (decoder, classifier, auxiliary head) are loaded if
    they fit and keep their initial weights otherwise, for example with another number of classes.

    Args:
        network: A DeepLabV3, changed in place.
        backbone: torchvision's name of the backbone.
        source: A torchvision weight name or a path; see `read_weights`.

    Raises:
        InputError: The weights cannot be read or do not fit the network.
    """
    required = ("backbone.", "classifier.0.")
    _load(network, read_weights(source, f"deeplabv3_{backbone}"), required, source)


def load_backbone_weights(network: nn.Module, backbone: str, source: str) -> None:
    """Load the backbone from a classification network of torchvision.

    Args:
        network: A DeepLabV3, changed in place.
        backbone: torchvision's name of the backbone.
        source: A torchvision weight name or a path; see `read_weights`.

    Raises:
        InputError: The weights cannot be read or do not fit the backbone.
    """
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
    """Load the weights of a QuickNAT of heartseg from a .safetensors or .pth file.

    All layers except the classifier must fit. The classifier keeps its initial weights if the file
    has another number of labels.

    Args:
        network: A QuickNAT, changed in place.
        source: Path of the file.

    Raises:
        InputError: The weights cannot be read or do not fit the network.
    """
    if not Path(source).is_file():
        raise InputError(
            f"{source} does not exist. Use weights.safetensors of a trained model's folder, such "
            "as results/mmode/model, or a file with a state dict."
        )
    _load(network, _read_file(Path(source)), ("encoders.", "bottleneck.", "decoders."), source)


def read_weights(source: str, model: str) -> StateDict:
    """Read a state dict from a .safetensors or .pth file, or from torchvision by name.

    Args:
        source: Path of a file, or a weight name such as "ResNet50_Weights.IMAGENET1K_V2".
        model: torchvision's name of the model to which the weight name belongs.

    Raises:
        InputError: `source` is neither a file nor a weight name of the model, the file contains no
            state dict, or the download fails.
    """
    if Path(source).is_file():
        return _read_file(Path(source))
    names = get_model_weights(model)
    name = source.removeprefix(f"{names.__name__}.")
    if name not in names.__members__:
        known = ", ".join(str(weights) for weights in names)
        raise InputError(f"{source} is neither a file nor weights of {model}; known: {known}")
    try:
        return names[name].get_state_dict(check_hash=True)
    except OSError as error:
        raise InputError(
            f"{source}: cannot download {names[name].url}: {error}. Download it on a machine "
            "with internet access and set the path of the file instead."
        ) from None


def _read_file(path: Path) -> StateDict:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format raises its own errors
        raise InputError(f"{path} cannot be read as weights: {error}") from None
    if not isinstance(state, dict) or not all(torch.is_tensor(value) for value in state.values()):
        raise InputError(f"{path} contains no state dict; save model.state_dict()")
    return state


def _load(network: nn.Module, state: StateDict, required: tuple[str, ...], source: str) -> None:
    """Load the tensors that fit.

    Args:
        network: Network, changed in place.
        state: State dict to load.
        required: Prefixes of the names that must fit.
        source: Origin of the state dict, for messages.

    Raises:
        InputError: A required tensor is missing or has another shape.
    """
    own = network.state_dict()
    first = next(key for key, value in own.items() if value.ndim == 4)  # the first convolution
    if first in state:
        state = {**state, first: _adapt_channels(state[first], own[first].shape[1])}

    fitting = {key for key in own if key in state and state[key].shape == own[key].shape}
    wrong = [
        f"{key} is {_shape(state.get(key))}, expected {_shape(own.get(key))}"
        for key in [*own, *(key for key in state if key not in own)]
        if key.startswith(required)
        and key not in fitting
        and not key.endswith("num_batches_tracked")  # absent from old files, and without effect
    ]
    if wrong:
        raise InputError(
            f"{source}: {len(wrong)} tensors do not fit the network: {'; '.join(wrong[:3])}. "
            "Change the recipe's model, or use other weights."
        )
    network.load_state_dict({key: state[key] for key in fitting}, strict=False)


def _adapt_channels(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """Adapt the weight (out, in, h, w) of the first convolution to a number of input channels.

    If all input channels are equal, the output is the same as with the original weight.
    """
    if weight.ndim != 4 or weight.shape[1] == channels:
        return weight
    return (weight.sum(dim=1, keepdim=True) / channels).repeat(1, channels, 1, 1)


def _shape(tensor: torch.Tensor | None) -> str:
    return "absent" if tensor is None else str(tuple(tensor.shape))
