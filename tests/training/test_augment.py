"""Tests of augmentation: geometry, intensities, and independence of the number of workers."""

from __future__ import annotations

import pytest
import torch

from heartseg.config.recipe import Augment
from heartseg.training.augment import Changes, apply, draw

OFF = Augment(
    probability=1.0,
    flip_left_right=False,
    rotate_degrees=0,
    scale=0,
    shift=0,
    brightness=0,
    contrast=0,
    gamma=0,
    speckle=0,
    blur=0,
)
ALL = Augment(
    probability=0.7,
    flip_left_right=True,
    rotate_degrees=30,
    scale=0.2,
    shift=0.1,
    brightness=0.2,
    contrast=0.3,
    gamma=0.4,
    speckle=0.2,
    blur=1.0,
)


def augment_batch(images, masks, config, generator):
    return apply(images, masks, draw(len(images), config, generator))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_batch(n: int = 6, height: int = 48, width: int = 48, channels: int = 1):
    images = torch.randint(256, (n, channels, height, width), generator=seeded(), dtype=torch.uint8)
    masks = torch.randint(4, (n, height, width), generator=seeded(1), dtype=torch.uint8)
    return images, masks


def test_everything_off_is_the_identity():
    images, masks = random_batch(channels=2)
    for config in (OFF, ALL.model_copy(update={"probability": 0.0})):
        out, out_masks = augment_batch(images, masks, config, seeded())
        assert out.dtype == torch.float32
        assert torch.equal(out, images.float())
        assert torch.equal(out_masks, masks)


@pytest.mark.parametrize("shape", [(48, 48), (47, 60)])
def test_shift_by_whole_pixels(shape: tuple[int, int]):
    height, width = shape
    images, masks = random_batch(2, height, width)
    shift = torch.tensor([[5 / height, -3 / width], [0.0, 0.0]])  # 5 down, 3 to the left
    out, out_masks = apply(images, masks, Changes(shift=shift))
    torch.testing.assert_close(out[0, :, 5:, :-3], images[0, :, :-5, 3:].float(), atol=0.02, rtol=0)
    assert torch.equal(out_masks[0, 5:, :-3], masks[0, :-5, 3:])
    assert out[0, :, :5].max() < 0.02  # from outside the image
    assert out_masks[0, :, -3:].max() == 0
    torch.testing.assert_close(out[1], images[1].float(), atol=0.02, rtol=0)
    assert torch.equal(out_masks[1], masks[1])


def test_rotation_by_90_degrees_is_counter_clockwise():
    images, masks = random_batch(2, channels=3)
    out, out_masks = apply(images, masks, Changes(rotate_degrees=torch.tensor([90.0, -90.0])))
    for i, turns in ((0, 1), (1, -1)):  # rot90 by +1 is counter-clockwise as displayed
        turned = torch.rot90(images[i], turns, dims=(1, 2)).float()
        torch.testing.assert_close(out[i], turned, atol=0.02, rtol=0)
        assert torch.equal(out_masks[i], torch.rot90(masks[i], turns, dims=(0, 1)))


def test_rotation_keeps_angles_if_height_and_width_differ():
    images = torch.zeros(1, 1, 41, 81, dtype=torch.uint8)
    images[..., 20, 40:51] = 255  # 11 pixels from the centre to the right
    out, _ = apply(images, images[:, 0], Changes(rotate_degrees=torch.tensor([90.0])))
    rows, columns = torch.nonzero(out[0, 0] > 128, as_tuple=True)
    assert set(columns.tolist()) == {40}
    assert sorted(rows.tolist()) == list(range(10, 21))  # now upwards, as long as before


@pytest.mark.parametrize("width", [48, 51])
def test_flip_is_exact_and_only_for_chosen_images(width: int):
    images, masks = random_batch(2, 48, width)
    out, out_masks = apply(images, masks, Changes(flip=torch.tensor([True, False])))
    torch.testing.assert_close(out[0], images[0].flip(-1).float(), atol=0.02, rtol=0)
    torch.testing.assert_close(out[1], images[1].float(), atol=0.02, rtol=0)
    assert torch.equal(out_masks, torch.stack([masks[0].flip(-1), masks[1]]))


def test_flip_comes_before_rotation_and_shift():
    images = torch.zeros(1, 1, 21, 21, dtype=torch.uint8)
    images[..., 10, 15] = 255  # 5 right of the centre; flipped: 5 left; turned by +90: 5 below
    changes = Changes(
        flip=torch.tensor([True]),
        rotate_degrees=torch.tensor([90.0]),
        shift=torch.tensor([[2 / 21, 3 / 21]]),
    )
    out, _ = apply(images, images[:, 0], changes)
    assert torch.nonzero(out[0, 0] > 200).tolist() == [[15 + 2, 10 + 3]]


def test_scale_enlarges_about_the_centre():
    images = torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    images[..., 24:40, 24:40] = 200
    masks = (images[:, 0] > 0).to(torch.uint8)
    _, out_masks = apply(images, masks, Changes(scale=torch.tensor([1.5])))
    expected = torch.zeros(64, 64, dtype=torch.uint8)
    expected[20:44, 20:44] = 1  # 16 pixels become 24
    assert torch.equal(out_masks[0], expected)


def test_image_and_mask_are_transformed_together():
    size = 96
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    blob = 250 * torch.exp(-(((x - 40) / 18.0) ** 2) - ((y - 55) / 12.0) ** 2)
    images = blob.round().to(torch.uint8).expand(16, 1, size, size)
    masks = (images[:, 0] > 125).to(torch.uint8)
    config = OFF.model_copy(
        update={"flip_left_right": True, "rotate_degrees": 180, "scale": 0.3, "shift": 0.2}
    )
    out, out_masks = augment_batch(images, masks, config, seeded())
    inside = (out[:, 0] > 125).to(torch.uint8)
    assert (out_masks.sum(dim=(1, 2)) > 100).all()
    # Nearest and linear interpolation may differ only within a pixel of the edge.
    grey = out[:, 0]
    assert ((out_masks == inside) | ((grey - 125).abs() < 20)).all()
    moved = [(a != b).float().mean() for a, b in zip(out_masks, masks, strict=True)]
    assert min(moved) > 0.01


def test_masks_keep_their_labels():
    images, _ = random_batch(8)
    masks = torch.zeros(8, 48, 48, dtype=torch.uint8)
    masks[:, 10:30, 10:30] = 3
    masks[:, 14:26, 14:26] = 1  # 2 lies between the labels and must not appear
    _, out = augment_batch(images, masks, ALL, seeded())
    assert out.dtype == torch.uint8
    assert set(out.unique().tolist()) == {0, 1, 3}


def test_intensities():
    images = torch.tensor([[[[0, 100], [100, 200]]]] * 4, dtype=torch.uint8)  # mean 100
    masks = torch.zeros(4, 2, 2, dtype=torch.uint8)
    ones = torch.ones(4)

    def row(**changes: torch.Tensor) -> list[float]:
        out, _ = apply(images, masks, Changes(**changes))
        return [round(v, 3) for v in out[0].flatten().tolist()]

    assert row(brightness=1.2 * ones) == [0, 120, 120, 240]
    assert row(brightness=1.5 * ones) == [0, 150, 150, 255]  # clamped
    assert row(contrast=0.5 * ones) == [50, 100, 100, 150]
    # brightness first: 0, 110, 220 with mean 110; then half the distance from it
    assert row(brightness=1.1 * ones, contrast=0.5 * ones) == [55, 110, 110, 165]
    # 255 * (100 / 255) ** 2 and 255 * (200 / 255) ** 2
    assert row(gamma=2 * ones) == [0, 39.216, 39.216, 156.863]


def test_gamma_of_black_and_of_strong_contrast_is_finite():
    images = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    images[1, :, :2] = 255
    changes = Changes(contrast=torch.full((3,), 1.9), gamma=torch.tensor([0.1, 0.5, 1.9]))
    out, _ = apply(images, images[:, 0], changes)
    assert torch.isfinite(out).all()
    assert out.min() == 0
    assert out.max() <= 255


def test_speckle_is_multiplicative_with_the_stated_deviation():
    images = torch.full((2, 1, 128, 128), 100, dtype=torch.uint8)
    images[:, :, :16] = 0
    changes = Changes(speckle=torch.tensor([0.1, 0.0]), speckle_seed=torch.tensor([5, 6]))
    out, _ = apply(images, images[:, 0], changes)
    assert out[0, :, :16].max() == 0  # black stays black
    assert out[0, :, 16:].std() == pytest.approx(10, rel=0.03)
    assert out[0, :, 16:].mean() == pytest.approx(100, rel=0.005)
    assert torch.equal(out[1], images[1].float())


def test_blur_equals_scipy():
    scipy_ndimage = pytest.importorskip("scipy.ndimage")
    images, masks = random_batch(5)
    config = OFF.model_copy(update={"blur": 2.0})
    changes = draw(5, config, seeded())
    assert changes.blur is not None
    offsets = torch.arange(13) - 6
    out, _ = apply(images, masks, changes)
    for image, taps, blurred in zip(images, changes.blur, out, strict=True):
        sigma = (-(1**2) / (2 * torch.log(taps[7] / taps[6]))).sqrt().item()  # ratio of two taps
        assert 0 < sigma <= 2
        gauss = torch.exp(-0.5 * (offsets / sigma) ** 2)
        torch.testing.assert_close(taps, gauss / gauss.sum())
        expected = scipy_ndimage.gaussian_filter(
            image[0].double().numpy(), sigma, mode="nearest", radius=6
        )
        torch.testing.assert_close(
            blurred[0], torch.from_numpy(expected).float(), atol=0.01, rtol=0
        )


def test_parameters_fill_their_range():
    changes = draw(20_000, ALL.model_copy(update={"probability": 1.0}), seeded())
    for values, centre, limit in (
        (changes.rotate_degrees, 0, 30),
        (changes.scale, 1, 0.2),
        (changes.shift, 0, 0.1),
        (changes.brightness, 1, 0.2),
        (changes.contrast, 1, 0.3),
        (changes.gamma, 1, 0.4),
    ):
        assert values is not None
        distance = values - centre
        assert distance.abs().max() <= limit * 1.0001
        assert distance.abs().max() > 0.99 * limit
        assert distance.mean() == pytest.approx(0, abs=0.03 * limit)


def test_probability_applies_to_each_image_and_change():
    n = 20_000
    # A blur below 0.17 pixels rounds to none; with a range up to 30 that is rare enough.
    changes = draw(n, ALL.model_copy(update={"probability": 0.5, "blur": 30}), seeded())
    chosen = {
        "flip": changes.flip,
        "rotate": changes.rotate_degrees != 0,
        "scale": changes.scale != 1,
        "shift": (changes.shift != 0).any(dim=1),
        "brightness": changes.brightness != 1,
        "speckle": changes.speckle != 0,
        "blur": changes.blur.max(dim=1).values < 1,
    }
    tolerance = 4 * 0.5 / n**0.5  # four standard errors
    for name, which in chosen.items():
        expected = 0.25 if name == "flip" else 0.5  # one of two images that may be mirrored
        assert which.float().mean() == pytest.approx(expected, abs=tolerance), name
    always = draw(n, ALL.model_copy(update={"probability": 1.0}), seeded())
    assert always.flip.float().mean() == pytest.approx(0.5, abs=tolerance)
    both = chosen["rotate"] & chosen["scale"]  # the two are independent
    assert both.float().mean() == pytest.approx(0.25, abs=tolerance)


def test_turning_one_change_off_does_not_affect_the_others():
    every = draw(8, ALL, seeded())
    fewer = draw(8, ALL.model_copy(update={"rotate_degrees": 0, "speckle": 0, "blur": 0}), seeded())
    assert fewer.rotate_degrees is None
    assert fewer.speckle is None
    assert fewer.blur is None
    for name in ("flip", "scale", "shift", "brightness", "contrast", "gamma"):
        assert torch.equal(getattr(every, name), getattr(fewer, name)), name


def test_same_generator_state_gives_the_same_batch():
    images, masks = random_batch()
    first = augment_batch(images, masks, ALL, seeded(3))
    again = augment_batch(images, masks, ALL, seeded(3))
    other = augment_batch(images, masks, ALL, seeded(4))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    shared = seeded(3)  # the next batch from the same generator differs
    augment_batch(images, masks, ALL, shared)
    assert not torch.equal(first[0], augment_batch(images, masks, ALL, shared)[0])


@pytest.mark.parametrize("parts", [[3, 3], [2, 2, 2], [1, 5]])
def test_a_distributed_batch_equals_the_whole(parts: list[int]):
    images, masks = random_batch(6, 40, 56, channels=2)
    changes = draw(6, ALL, seeded())
    whole, whole_masks = apply(images, masks, changes)
    start = 0
    for size in parts:
        part = slice(start, start + size)
        out, out_masks = apply(images[part], masks[part], changes.rows(part))
        assert torch.equal(out, whole[part])
        assert torch.equal(out_masks, whole_masks[part])
        start += size


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_equals_cpu():
    images, masks = random_batch(6, 64, 64)
    changes = draw(6, ALL.model_copy(update={"speckle": 0}), seeded())
    cpu, cpu_masks = apply(images, masks, changes)
    gpu, gpu_masks = apply(images.cuda(), masks.cuda(), changes)
    assert gpu.is_cuda
    torch.testing.assert_close(gpu.cpu(), cpu, atol=0.1, rtol=0)
    assert (gpu_masks.cpu() == cpu_masks).float().mean() > 0.999
    noisy = draw(6, ALL, seeded())
    whole, _ = apply(images.cuda(), masks.cuda(), noisy)
    half, _ = apply(images[3:].cuda(), masks[3:].cuda(), noisy.rows(slice(3, 6)))
    assert torch.equal(half, whole[3:])
