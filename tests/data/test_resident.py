"""Resident arrays equal the prepared dataset, resized."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from heartseg.data.prepared import Sample, write_prepared
from heartseg.data.resident import Resident, load_resident
from heartseg.data.resize import resize_images
from tests.data.raw import echo

SIZE = 32


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """Write five training cases and one validation case of different shapes."""
    made = []
    for number in range(6):
        image, mask = echo(number)
        pixels = (image[number:], mask[number:])
        name = f"case{number}"
        made.append(Sample(name, name, "2CH", "ED", 0, *pixels, spacing=(0.3, 0.3)))
    split_of = {sample.patient: "train" for sample in made} | {"case5": "val"}
    write_prepared(tmp_path / "d.parquet", made, split_of, {})
    return tmp_path / "d.parquet"


def test_images_and_masks_at_the_input_size(prepared: Path) -> None:
    data = load_resident(prepared, "train", SIZE, threads=3)
    assert data.case_ids == [f"case{number}" for number in range(5)]
    assert data.images.shape == (5, 1, SIZE, SIZE)
    assert data.masks.shape == (5, SIZE, SIZE)
    assert data.images.dtype == data.masks.dtype == torch.uint8
    for number in range(5):
        image, mask = (pixels[number:] for pixels in echo(number))
        resized = resize_images(torch.from_numpy(image)[None, None], SIZE)[0]
        assert torch.equal(data.images[number], resized)
        # The nearest pixel of the centre of each new one.
        rows = np.floor((np.arange(SIZE) + 0.5) * mask.shape[0] / SIZE).astype(int)
        columns = np.floor((np.arange(SIZE) + 0.5) * mask.shape[1] / SIZE).astype(int)
        assert (data.masks[number].numpy() == mask[np.ix_(rows, columns)]).all()


def test_stacked_frames_become_channels(tmp_path: Path) -> None:
    """Each frame is resized independently."""
    stack = np.stack([echo(number)[0] for number in range(5)])
    sample = Sample("a", "a", "2CH", "ED", 0, stack, echo()[1], spacing=(0.3, 0.3))
    write_prepared(tmp_path / "d.parquet", [sample], {"a": "train"}, {"frames": 5})
    data = load_resident(tmp_path / "d.parquet", "train", SIZE)
    assert data.images.shape == (1, 5, SIZE, SIZE)
    assert data.nbytes == SIZE * SIZE * (5 + 1)
    for channel, frame in zip(data.images[0], stack, strict=True):
        assert torch.equal(channel, resize_images(torch.from_numpy(frame)[None, None], SIZE)[0, 0])
    assert load_resident(tmp_path / "d.parquet", "val", SIZE).images.shape == (0, 5, SIZE, SIZE)


def test_result_does_not_depend_on_threads(prepared: Path) -> None:
    one, many = (load_resident(prepared, "train", SIZE, threads=count) for count in (1, 4))
    assert torch.equal(one.images, many.images)
    assert torch.equal(one.masks, many.masks)


def test_nbytes_equals_formula(prepared: Path) -> None:
    for size in (16, 48):
        data = load_resident(prepared, "train", size)
        assert data.nbytes == 5 * size * size * (1 + 1)
    colour = Resident(
        torch.zeros((7, 3, 8, 8), dtype=torch.uint8),
        torch.zeros((7, 8, 8), dtype=torch.uint8),
        [str(number) for number in range(7)],
    )
    assert colour.nbytes == 7 * 8 * 8 * (3 + 1)


def test_an_empty_split_is_empty(prepared: Path) -> None:
    data = load_resident(prepared, "test", SIZE)
    assert len(data) == 0
    assert data.images.shape == (0, 1, SIZE, SIZE)


def test_arrays_are_passed_without_copy(prepared: Path) -> None:
    data = load_resident(prepared, "val", SIZE)
    images, masks, case_ids, about = data.arrays()
    assert images.__array_interface__["data"][0] == data.images.data_ptr()
    images.flags.writeable = masks.flags.writeable = False  # as Ray's object store hands them out
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = Resident.from_numpy(images, masks, case_ids, about)
    assert again.images.data_ptr() == data.images.data_ptr()
    assert again.masks.data_ptr() == data.masks.data_ptr()
    assert again.case_ids == ["case5"]


def test_select_patients(prepared: Path) -> None:
    every = load_resident(prepared, None, SIZE)
    assert len(every) == 6
    some = every.select_patients({"case5", "case1", "nobody"})
    assert some.case_ids == list(some.about["patient"]) == ["case1", "case5"]
    assert torch.equal(some.images, every.images[[1, 5]])
    assert torch.equal(some.masks, every.masks[[1, 5]])
