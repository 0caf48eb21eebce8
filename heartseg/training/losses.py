"""Losses on logits (N, K, H, W) and label maps (N, H, W)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from heartseg.config.recipe import Recipe

AUXILIARY_WEIGHT = 0.5
"""Weight of the auxiliary head's loss, as in torchvision's reference training."""

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def build_loss(recipe: Recipe, device: torch.device | str = "cpu") -> Loss:
    """Build the loss of a recipe.

    Each loss is a mean over images. Its mean over equal shares of a batch is therefore the loss of
    the whole batch for any number of workers.

    Returns:
        A function from logits (N, K, H, W) and labels uint8 (N, H, W) to a scalar.
    """
    weights = None
    if recipe.class_weights is not None:
        weights = torch.tensor(recipe.class_weights, device=device)
    single = one_vs_rest_bce if recipe.loss == "one_vs_rest_bce" else CrossEntropyDice()

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return single(logits.float(), labels.long(), weights)

    return loss


class CrossEntropyDice:
    """Sum of cross-entropy and soft Dice loss of the foreground (Milletari et al., 3DV 2016)."""

    def __init__(self) -> None:
        from monai.losses import DiceLoss  # imported here because it takes seconds

        self.dice = DiceLoss(include_background=False, to_onehot_y=True, softmax=True)

    def __call__(
        self, logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None
    ) -> torch.Tensor:
        # torch's weighted mean divides by the sum of the weights in the batch. The loss would then
        # depend on the distribution of the batch over workers.
        entropy = F.cross_entropy(logits, labels, weight=weights, reduction="none").mean()
        return entropy + self.dice(logits, labels.unsqueeze(1))


def one_vs_rest_bce(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None
) -> torch.Tensor:
    """Compute the mean binary cross-entropy of one sigmoid per label.

    With a single channel, the target is "not background".

    Args:
        logits: (N, K, H, W).
        labels: int64 (N, H, W).
        weights: Weight of each label, or None.
    """
    channels = logits.shape[1]
    if channels == 1:
        targets = (labels > 0).unsqueeze(1)
        pixel_weights = None if weights is None else weights[labels].unsqueeze(1)
    else:
        targets = F.one_hot(labels, channels).movedim(-1, 1)
        pixel_weights = None if weights is None else weights[:, None, None].expand_as(logits)
    return F.binary_cross_entropy_with_logits(logits, targets.float(), weight=pixel_weights)


def training_loss(
    output: torch.Tensor | tuple[torch.Tensor, torch.Tensor], labels: torch.Tensor, loss: Loss
) -> torch.Tensor:
    """Compute the loss of a network's output, including an auxiliary head if it has one.

    Args:
        output: Logits (N, K, H, W), or (logits, auxiliary logits).
        labels: uint8 (N, H, W).
        loss: Function of `build_loss`.
    """
    if isinstance(output, tuple):
        logits, auxiliary = output
        return loss(logits, labels) + AUXILIARY_WEIGHT * loss(auxiliary, labels)
    return loss(output, labels)
