"""Tests of the largest connected components against scipy."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from heartseg.models.connected_components import keep_largest_components
from heartseg.models.inference import PackagedModel, export_model


def by_scipy(labels: np.ndarray, n_labels: int) -> np.ndarray:
    kept = np.zeros_like(labels)
    for label in range(1, n_labels):
        parts, count = ndimage.label(labels == label)
        sizes = np.bincount(parts.ravel())[1:]
        if count:
            last = [np.flatnonzero(parts.ravel() == part + 1)[-1] for part in range(count)]
            kept[parts == 1 + max(range(count), key=lambda p: (sizes[p], last[p]))] = label
    return kept


def blobs(shape: tuple[int, ...], scale: float, seed: int) -> np.ndarray:
    """Return label maps (N, H, W) with random blobs, thin necks and islands."""
    noise = np.random.default_rng(seed).normal(size=(4, *shape))
    return ndimage.gaussian_filter(noise, (0, 0, scale, scale)).argmax(0).astype(np.uint8)


def test_equals_scipy_on_random_blobs() -> None:
    for seed, scale in enumerate((1, 1, 1, 2, 2, 3, 4, 6, 8)):
        labels = blobs((3, 70, 90), scale, seed)
        found = keep_largest_components(torch.from_numpy(labels), 4).numpy()
        assert found.dtype == np.uint8
        for one, own in zip(found, labels, strict=True):
            assert np.array_equal(one, by_scipy(own, 4))


def spiral(size: int) -> np.ndarray:
    """Return a label map with a spiral line, one pixel wide."""
    labels = np.ones((size, size), np.uint8)
    row, column, step, length = 0, 0, 0, size - 1
    moves = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    lengths = [size - 1, size - 1]
    while length > 1:
        lengths += [length, length - 2]
        length -= 2
    labels[:] = 0
    labels[0, 0] = 1
    for step, length in enumerate(lengths):
        for _ in range(length):
            row += moves[step % 4][0]
            column += moves[step % 4][1]
            labels[row, column] = 1
    return labels


def test_a_spiral_is_one_component_also_after_export() -> None:
    labels = spiral(63)
    assert ndimage.label(labels)[1] == 1
    model = PackagedModel(Brightness(), 63, largest_component=True).eval()
    program = export_model(model, 1).module()
    images = torch.from_numpy(labels * 128)[None, None]
    assert np.array_equal(program(images)[0].numpy() > 0, labels > 0)
    kept = keep_largest_components(torch.from_numpy(labels)[None], 2)[0].numpy()
    assert np.array_equal(kept, labels)


def test_a_winding_line_is_one_component() -> None:
    labels = np.zeros((61, 60), np.uint8)
    labels[::4, 1:-1] = 1  # bars, joined alternately at the left and right
    for number, row in enumerate(range(0, 48, 4)):
        labels[row : row + 5, -2 if number % 2 else 1] = 1
    labels[50:60, 20:40] = 2
    labels[48:, :] = np.where(labels[48:, :] == 1, 0, labels[48:, :])
    assert ndimage.label(labels == 1)[1] == 1
    kept = keep_largest_components(torch.from_numpy(labels)[None], 3)[0].numpy()
    assert np.array_equal(kept, labels)


def test_corners_do_not_connect_and_one_of_two_equal_components_is_kept() -> None:
    labels = np.zeros((8, 8), np.uint8)
    labels[1:3, 1:3] = labels[3:5, 3:5] = 1
    found = keep_largest_components(torch.from_numpy(labels)[None], 2)[0].numpy()
    assert found.sum() == 4
    assert found[3:5, 3:5].all()


def test_empty_and_full_images() -> None:
    empty, full = torch.zeros(1, 5, 7, dtype=torch.uint8), torch.ones(1, 5, 7, dtype=torch.uint8)
    assert torch.equal(keep_largest_components(empty, 4), empty)
    assert torch.equal(keep_largest_components(full, 4), full)


class Brightness(torch.nn.Module):
    """A network whose label is the grey value in steps of 64."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return -(images - torch.tensor([-1.5, -0.6, 0.6, 1.8]).view(1, 4, 1, 1)).abs()


def test_packaged_model_keeps_largest_components_at_any_size() -> None:
    model = PackagedModel(Brightness(), 48, largest_component=True).eval()
    plain = PackagedModel(Brightness(), 48).eval()
    program = export_model(model, 1).module()
    changed = 0
    for shape in ((1, 61, 93), (3, 48, 48), (2, 130, 77)):
        images = torch.from_numpy(blobs(shape, 6, 0) * 64)[:, None]
        with torch.no_grad():
            before, found = plain(images), model(images)
        assert torch.equal(program(images), found)
        for own, one in zip(before.numpy(), found.numpy(), strict=True):
            assert np.array_equal(one, by_scipy(own, 4))
        changed += int((before != found).sum())
    assert changed > 0
