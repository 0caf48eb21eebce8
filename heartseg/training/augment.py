"""Random augmentation of whole training batches on the device, image and mask together.

`draw` draws the parameters of the global batch and `apply` applies any of its rows. The workers of
a distributed training therefore see exactly the images that a single worker would see.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from heartseg.config.recipe import Augment


@dataclass(frozen=True)
class Changes:
    """Parameters of the augmentation: CPU tensors with one row per image, or None if turned off.

    An image is first flipped, then rotated and scaled about its centre, then shifted.
    """

    flip: Tensor | None = None
    """bool (n,): whether to mirror left and right."""
    rotate_degrees: Tensor | None = None
    """(n,): angle, counter-clockwise as displayed."""
    scale: Tensor | None = None
    """(n,): factor; above 1 enlarges."""
    shift: Tensor | None = None
    """(n, 2): down and to the right, as a fraction of height and width."""
    brightness: Tensor | None = None
    """(n,): factor of all intensities."""
    contrast: Tensor | None = None
    """(n,): factor of the distance from the image's mean intensity."""
    gamma: Tensor | None = None
    """(n,): exponent of the intensities in 0..1."""
    speckle: Tensor | None = None
    """(n,): standard deviation of the multiplicative Gaussian noise."""
    speckle_seed: Tensor | None = None
    """int64 (n,): seed of each image's noise, which depends on the seed and the type of device."""
    blur: Tensor | None = None
    """(n, taps): symmetric filter with sum 1, applied along rows and along columns."""

    def rows(self, part: slice) -> Changes:
        """Return the parameters of some images of the batch."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Changes(**{k: None if v is None else v[part] for k, v in values.items()})


def draw(n: int, config: Augment, generator: torch.Generator) -> Changes:
    """Draw augmentation parameters; each image gets each change with `config.probability`.

    An image that gets a flip is mirrored with probability 1/2, as a flip has no amount to draw.

    Args:
        n: Number of images in the global batch.
        config: Limits of the changes.
        generator: CPU generator. It always yields the same number of values, so that turning off
            one change does not affect the others.
    """

    def within(limit: float, *columns: int) -> Tensor | None:
        """Draw uniformly within ± limit, 0 for images without the change; None if turned off."""
        amount = (2 * torch.rand(n, *columns, generator=generator) - 1) * limit
        chosen = torch.rand(n, *[1] * len(columns), generator=generator) < config.probability
        return torch.where(chosen, amount, 0.0) if limit and config.probability else None

    def factor(limit: float) -> Tensor | None:
        amount = within(limit)
        return None if amount is None else 1 + amount

    flip = torch.rand(n, generator=generator) < config.probability / 2
    rotate, scale, shift = (
        within(config.rotate_degrees),
        factor(config.scale),
        within(config.shift, 2),
    )
    brightness, contrast = factor(config.brightness), factor(config.contrast)
    gamma, blur, speckle = factor(config.gamma), within(config.blur), within(config.speckle)
    seeds = torch.randint(2**31, (n,), generator=generator)
    return Changes(
        flip=flip if config.flip_left_right and config.probability else None,
        rotate_degrees=rotate,
        scale=scale,
        shift=shift,
        brightness=brightness,
        contrast=contrast,
        gamma=gamma,
        speckle=None if speckle is None else (speckle != 0) * config.speckle,
        speckle_seed=None if speckle is None else seeds,
        blur=None if blur is None else _gaussian(blur.abs(), config.blur),
    )


def apply(images: Tensor, masks: Tensor, changes: Changes) -> tuple[Tensor, Tensor]:
    """Augment a batch on its device.

    Args:
        images: Grey values uint8 (N, C, H, W).
        masks: Label maps uint8 (N, H, W).
        changes: Parameters with one row per image.

    Returns:
        Images float32 (N, C, H, W) in 0..255 and masks uint8 (N, H, W). Pixels from outside the
        image are black and background.
    """
    grid = _source_grid(images, changes)
    if grid is None:
        out = images.float()
    else:
        out = F.grid_sample(images.float(), grid, align_corners=False)
        # grid_sample is faster than indexing, and label values are exact in float32.
        moved = F.grid_sample(masks[:, None].float(), grid, mode="nearest", align_corners=False)
        masks = moved[:, 0].to(masks.dtype)
    _change_intensities(out, images, changes)
    if changes.speckle is not None and changes.speckle_seed is not None:
        generator = torch.Generator(device=images.device)
        strengths, seeds = changes.speckle.tolist(), changes.speckle_seed.tolist()
        for image, strength, seed in zip(out, strengths, seeds, strict=True):
            if strength:
                noise = torch.empty_like(image)
                image *= noise.normal_(1.0, strength, generator=generator.manual_seed(seed))
    if changes.blur is not None:
        out = _blur(out, changes.blur.to(images.device))
    return out.clamp_(0, 255), masks


def _source_grid(images: Tensor, changes: Changes) -> Tensor | None:
    """Compute the source coordinates of each pixel for `grid_sample`, float32 (N, H, W, 2).

    torch's affine_grid takes far longer than grid_sample itself on a CPU, hence this function.

    Returns:
        The grid, or None if all geometric changes are turned off.
    """
    flip, angle, scale, shift = changes.flip, changes.rotate_degrees, changes.scale, changes.shift
    if flip is None and angle is None and scale is None and shift is None:
        return None
    n, _, height, width = images.shape
    # float64 on the CPU makes 90 degrees exact, and some devices do not support float64.
    theta = torch.zeros(n).double() if angle is None else torch.deg2rad(angle.double())
    zoom = torch.ones(n).double() if scale is None else scale.double()
    down, right = torch.zeros(2, n).double() if shift is None else shift.double().T
    mirror = torch.ones(n).double() if flip is None else 1 - 2 * flip.double()

    # In pixels (x right, y down) from the centre: invert shift, then rotation and scale, then flip.
    # grid_sample's coordinates are -1..1 from border to border: 2 / width per pixel.
    cos, sin = torch.cos(theta) / zoom, torch.sin(theta) / zoom
    shift_x, shift_y = right * width, down * height
    to_x = mirror * 2 / width * torch.stack([cos, -sin, sin * shift_y - cos * shift_x])
    to_y = 2 / height * torch.stack([sin, cos, -sin * shift_x - cos * shift_y])

    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = torch.arange(height, device=images.device) - (height - 1) / 2
    by_x, by_y, offset = torch.stack([to_x, to_y], -1).float().to(images.device)[..., None, None, :]
    return by_x * x[:, None] + (by_y * y[:, None, None] + offset)


def _change_intensities(out: Tensor, images: Tensor, changes: Changes) -> None:
    """Change brightness, contrast and gamma in place.

    Args:
        out: Geometrically changed images float32 (N, C, H, W).
        images: Original images uint8 (N, C, H, W), from which the mean is computed.
        changes: Parameters with one row per image.
    """

    def column(values: Tensor) -> Tensor:
        return values.to(out.device, out.dtype)[:, None, None, None]

    if changes.brightness is not None:
        out *= column(changes.brightness)
    if changes.contrast is not None:
        contrast = column(changes.contrast)
        # Unlike float sums, integer sums do not depend on the distribution of the batch.
        mean = column(images.sum(dim=(1, 2, 3), dtype=torch.int64)) / images[0].numel()
        if changes.brightness is not None:
            mean = mean * column(changes.brightness)
        out.mul_(contrast).add_(mean * (1 - contrast))
    if changes.gamma is not None:
        out.clamp_(0, 255).div_(255).pow_(column(changes.gamma)).mul_(255)


def _gaussian(sigma: Tensor, largest: float) -> Tensor:
    """Compute Gaussian filters (n, taps).

    Args:
        sigma: Standard deviations (n,) in pixels; 0 gives the identity.
        largest: Largest possible standard deviation. The filters extend to three times this value,
            so that their length does not depend on the batch.
    """
    reach = max(1, round(3 * largest))
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (offsets / sigma.clamp(min=1e-3)[:, None]) ** 2)
    return weights / weights.sum(dim=1, keepdim=True)


def _blur(images: Tensor, taps: Tensor) -> Tensor:
    """Filter images (N, C, H, W) with separable filters (N, taps).

    The filter is a sum of shifted copies. The algorithm of a convolution, and hence its rounding,
    may depend on the batch size.
    """
    reach = taps.shape[1] // 2
    for dim, padding in ((2, (0, 0, reach, reach)), (3, (reach, reach, 0, 0))):
        size = images.shape[dim]
        padded = F.pad(images, padding, mode="replicate")
        images = torch.zeros_like(images)
        for k, tap in enumerate(taps.T):
            images += tap[:, None, None, None] * padded.narrow(dim, k, size)
    return images
