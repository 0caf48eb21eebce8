"""Random changes of whole training batches on the device, image and mask together.

`draw` chooses the parameters of a global batch, `apply` carries them out on any of its rows; so
the workers of a distributed training see exactly the images that a single worker would.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from heartseg.config.recipe import Augment


@dataclass(frozen=True)
class Changes:
    """Parameters of the changes, CPU tensors with one row per image; None = change is off.

    An image is first flipped, then rotated and scaled about its centre, then shifted.
    """

    flip: Tensor | None = None
    """bool (n,): mirror left and right."""
    rotate_degrees: Tensor | None = None
    """(n,): counter-clockwise as displayed."""
    scale: Tensor | None = None
    """(n,): factor, above 1 enlarges."""
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
    """int64 (n,): an image's noise depends on nothing but its seed (and the kind of device)."""
    blur: Tensor | None = None
    """(n, taps): symmetric filter, sum 1, applied along rows and along columns."""

    def rows(self, part: slice) -> Changes:
        """The changes of some images of the batch."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Changes(**{k: None if v is None else v[part] for k, v in values.items()})


def draw(n: int, config: Augment, generator: torch.Generator) -> Changes:
    """Draw the changes of n images; each image gets each change with config.probability.

    A flip has no size that could be drawn: an image that gets it is mirrored with probability
    1/2, so that both sides stay equally frequent whatever the probability is.

    Args:
        n: images of the whole global batch.
        config: what may change and how much.
        generator: on the CPU. The same number of values is taken from it whatever is turned
            off, so turning one change off leaves the others as they were.
    """

    def within(limit: float, *columns: int) -> Tensor | None:
        """Uniform within ± limit, 0 for images that are left alone; None where turned off."""
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
    """Carry out changes on a batch, on the device where it lies.

    Args:
        images: uint8 (N, C, H, W).
        masks: uint8 (N, H, W).
        changes: one row per image.

    Returns:
        Images float32 (N, C, H, W) in 0..255, masks uint8 (N, H, W). What comes into view from
        beyond the border is black background.
    """
    grid = _source_grid(images, changes)
    if grid is None:
        out = images.float()
    else:
        out = F.grid_sample(images.float(), grid, align_corners=False)
        # Faster than gathering by index; label values are exact in float32.
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
    """For each output pixel the place it comes from, (N, H, W, 2) as grid_sample takes it.

    None where no image moves. Written out because torch's affine_grid takes far longer than
    grid_sample itself on a CPU.
    """
    flip, angle, scale, shift = changes.flip, changes.rotate_degrees, changes.scale, changes.shift
    if flip is None and angle is None and scale is None and shift is None:
        return None
    n, _, height, width = images.shape
    # In float64 on the CPU, so that 90 degrees are 90 degrees; some devices have no float64.
    theta = torch.zeros(n).double() if angle is None else torch.deg2rad(angle.double())
    zoom = torch.ones(n).double() if scale is None else scale.double()
    down, right = torch.zeros(2, n).double() if shift is None else shift.double().T
    mirror = torch.ones(n).double() if flip is None else 1 - 2 * flip.double()

    # Pixels (x right, y down) from the centre: undo the shift, then rotation and scale, then flip.
    # grid_sample counts -1..1 from border to border: 2 / width per pixel from the centre.
    cos, sin = torch.cos(theta) / zoom, torch.sin(theta) / zoom
    shift_x, shift_y = right * width, down * height
    to_x = mirror * 2 / width * torch.stack([cos, -sin, sin * shift_y - cos * shift_x])
    to_y = 2 / height * torch.stack([sin, cos, -sin * shift_x - cos * shift_y])

    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = torch.arange(height, device=images.device) - (height - 1) / 2
    by_x, by_y, offset = torch.stack([to_x, to_y], -1).float().to(images.device)[..., None, None, :]
    return by_x * x[:, None] + (by_y * y[:, None, None] + offset)


def _change_intensities(out: Tensor, images: Tensor, changes: Changes) -> None:
    """Brightness, contrast and gamma of `out` (N, C, H, W), in place; `images` before moving."""

    def column(values: Tensor) -> Tensor:
        return values.to(out.device, out.dtype)[:, None, None, None]

    if changes.brightness is not None:
        out *= column(changes.brightness)
    if changes.contrast is not None:
        contrast = column(changes.contrast)
        # Integer sums do not depend on how the batch is shared out; float sums would.
        mean = column(images.sum(dim=(1, 2, 3), dtype=torch.int64)) / images[0].numel()
        if changes.brightness is not None:
            mean = mean * column(changes.brightness)
        out.mul_(contrast).add_(mean * (1 - contrast))
    if changes.gamma is not None:
        out.clamp_(0, 255).div_(255).pow_(column(changes.gamma)).mul_(255)


def _gaussian(sigma: Tensor, largest: float) -> Tensor:
    """Gaussian filters (n, taps) for standard deviations (n,) in pixels; 0 is the identity.

    All reach three times the largest possible standard deviation, whoever else is in the batch.
    """
    reach = max(1, round(3 * largest))
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (offsets / sigma.clamp(min=1e-3)[:, None]) ** 2)
    return weights / weights.sum(dim=1, keepdim=True)


def _blur(images: Tensor, taps: Tensor) -> Tensor:
    """Separable filter with its own taps per image. Sums of shifted copies, since a convolution's
    algorithm, and so its rounding, may change with the size of the batch."""
    reach = taps.shape[1] // 2
    for dim, padding in ((2, (0, 0, reach, reach)), (3, (reach, reach, 0, 0))):
        size = images.shape[dim]
        padded = F.pad(images, padding, mode="replicate")
        images = torch.zeros_like(images)
        for k, tap in enumerate(taps.T):
            images += tap[:, None, None, None] * padded.narrow(dim, k, size)
    return images
