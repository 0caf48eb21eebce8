"""Losses on logits (N, K, H, W) and label maps (N, H, W)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from heartseg.config.recipe import Recipe

AUXILIARY_WEIGHT = 0.5  # of the auxiliary head's loss, as in torchvision's segmentation reference

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def build_loss(recipe: Recipe, device: torch.device | str = "cpu") -> Loss:
    """The recipe's loss: `loss(logits (N, K, H, W), labels uint8 (N, H, W)) -> scalar`.

    Each is a mean over images of a value per image, so that the mean over equal shares of a
    batch is the value of the whole batch, whatever the number of workers.
    """
    weights = None
    if recipe.class_weights is not None:
        weights = torch.tensor(recipe.class_weights, device=device)
    single = one_vs_rest_bce if recipe.loss == "one_vs_rest_bce" else CrossEntropyDice()

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return single(logits.float(), labels.long(), weights)

    return loss


class CrossEntropyDice:
    """Cross-entropy + soft Dice of the foreground (Milletari et al., 3DV 2016), equal parts."""

    def __init__(self) -> None:
        from monai.losses import DiceLoss  # takes seconds, which other losses need not wait for

        self.dice = DiceLoss(include_background=False, to_onehot_y=True, softmax=True)

    def __call__(
        self, logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None
    ) -> torch.Tensor:
        # torch's own weighted mean divides by the weights met in the batch, which would make
        # the loss of a batch depend on how it is shared between workers.
        entropy = F.cross_entropy(logits, labels, weight=weights, reduction="none").mean()
        return entropy + self.dice(logits, labels.unsqueeze(1))


def one_vs_rest_bce(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None
) -> torch.Tensor:
    """Mean binary cross-entropy of one sigmoid per label against that label's mask.

    With a single channel (K = 1) the target is "not background".
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
    """Loss of a network's training output, with the auxiliary head's where there is one."""
    if isinstance(output, tuple):
        logits, auxiliary = output
        return loss(logits, labels) + AUXILIARY_WEIGHT * loss(auxiliary, labels)
    return loss(output, labels)
