"""Tests of test-time augmentation: inverse transforms, geometry, and averaged predictions."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from heartseg.datasets import DATASETS
from heartseg.datasets.spec import View
from heartseg.models.inference import MEAN, STD, PackagedModel
from heartseg.models.tta import TTATransform, views_of

SIZE = 64


def blob(rows: int = SIZE) -> torch.Tensor:
    """Return a smooth spot that is not in the centre, float (1, 1, rows, rows)."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(rows), indexing="ij")
    distance = (row - 0.4 * rows) ** 2 + (column - 0.55 * rows) ** 2
    return 200 * torch.exp(-distance / (0.03 * rows**2))[None, None]


@pytest.mark.parametrize("view", [view for spec in DATASETS.values() for view in spec.views])
def test_the_inverse_restores_the_image(view: View) -> None:
    transform = TTATransform(view, SIZE)
    image = blob()
    changed = transform(image)
    assert (view == View()) == torch.equal(changed, image)
    assert (transform.inverse(changed) - image).abs().max() < 4  # of 200; interpolated twice


def test_views_rotate_and_scale_about_the_centre() -> None:
    image = torch.zeros(1, 1, SIZE, SIZE)
    image[0, 0, 31:33, 47:49] = 1.0  # 16 pixels to the right of the centre
    turned = TTATransform(View(rotate_degrees=90), SIZE)(image)
    larger = TTATransform(View(scale=1.5), SIZE)(image)
    rows, columns = (turned[0, 0] > 0.5).nonzero(as_tuple=True)
    assert columns.float().mean() == pytest.approx(31.5, abs=0.6)
    assert abs(rows.float().mean() - 31.5) == pytest.approx(16, abs=0.6)
    weights = larger[0, 0].sum(0)
    middle = (weights * torch.arange(SIZE)).sum() / weights.sum()
    assert middle == pytest.approx(31.5 + 1.5 * 16, abs=0.6)


def test_apical_views_are_never_mirrored() -> None:
    assert not any(view.mirror for view in DATASETS["camus"].views)
    assert views_of("camus", "none") == (View(),)
    assert views_of("mmode", "views")[0] == View()


class SegmentsLeftHalf(nn.Module):
    """A network with logit 3 of label 1 on the left half of its input, and -1 elsewhere."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = torch.full_like(images, -1.0)
        logits[..., : images.shape[-1] // 2] = 3.0
        return logits


def test_labels_follow_the_mean_probability() -> None:
    """With the mirrored view, both halves have the mean of the two probabilities."""
    model = PackagedModel(SegmentsLeftHalf(), SIZE)
    images = torch.zeros(2, 1, 40, 50, dtype=torch.uint8)
    assert model(images).float().mean() == 0.5
    model.set_tta(views_of("mmode", "views"))
    probability = model.logits(images).sigmoid()
    expected = (torch.tensor(3.0).sigmoid() + torch.tensor(-1.0).sigmoid()) / 2
    torch.testing.assert_close(probability, expected.expand_as(probability))
    assert model(images).all()


def test_pixels_from_outside_are_black() -> None:
    """A scaled-down view has a black frame, as with the augmentation during training."""
    seen = []

    class Recorder(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(images * STD + MEAN)
            return images

    model = PackagedModel(Recorder(), SIZE)
    model.set_tta((View(scale=0.5),))
    model(torch.full((1, 1, SIZE, SIZE), 200, dtype=torch.uint8))
    assert seen[0][0, 0, 0, 0] == pytest.approx(0, abs=1e-3)
    assert seen[0][0, 0, SIZE // 2, SIZE // 2] == pytest.approx(200, abs=1e-3)
