"""Small recipes and images that several tests use, and where the real data are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from heartseg.config.params import Params
from heartseg.config.recipe import Recipe
from heartseg.data.prepared import Sample, write_prepared

if TYPE_CHECKING:
    from heartseg.models.trained import TrainingRecord

ROOT = Path(__file__).parents[1]


def real_data(variable: str) -> Path:
    """The folder that an environment variable names; the test is skipped where it is unset."""
    if not os.environ.get(variable):
        pytest.skip(f"{variable} is not set: it names a folder of real data")
    return Path(os.environ[variable])


def camus_reference_masks() -> Iterator[tuple[str, str, str, np.ndarray, tuple[float, float]]]:
    """(patient, view, phase, label map (H, W), spacing) of the real release, patient by patient."""
    import nibabel

    for path in sorted(
        (real_data("HEARTSEG_CAMUS_ROOT") / "database_nifti").glob("*/*_E[DS]_gt.*")
    ):
        patient, view, phase, _ = path.name.split("_")
        image = nibabel.load(path)
        column, row = (float(step) for step in image.header.get_zooms()[:2])
        yield patient, view, phase, np.asarray(image.dataobj).T.astype(np.uint8), (row, column)


def small_recipe(params: Params, **changes: Any) -> Recipe:
    """The CAMUS recipe with a tiny QuickNAT, and `changes` to its fields.

    Neither its network nor its loss needs MONAI or torchvision, whose imports take each process
    longer than torch's.
    """
    values = params.recipe("camus").model_dump(mode="json") | {
        "model": {
            "name": "quicknat",
            "in_channels": 1,
            "filters": 4,
            "kernel": 3,
            "squeeze_excite": "none",
            "dropout": 0.1,
            "weights": None,
        },
        "loss": "one_vs_rest_bce",
        "input_size": 32,
        "batch_size": 4,
        "epochs": 3,
        "channels_last": False,
    }
    return Recipe.model_validate(values | changes)


def training_record(recipe: Recipe, **changes: Any) -> TrainingRecord:
    """A record of a training of `recipe`, with `changes` to its fields."""
    from heartseg.models.trained import TrainingRecord

    values = {
        "recipe_name": "camus",
        "recipe": recipe.model_dump(mode="json"),
        "data_digest": "aaaa1111",
        "experiment": "heartseg-camus",
        "tags": {"git.commit": "none", "git.dirty": "none"},
    }
    return TrainingRecord.model_validate(values | changes)


def disks(count: int, size: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (N, 1, S, S) and masks uint8 (N, S, S): a cavity in a ring, by an atrium."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    masks = np.zeros((count, size, size), np.uint8)
    for mask in masks:
        centre = size / 2 + rng.uniform(-3, 3, 2)
        radius = rng.uniform(4, 6)
        distance = np.hypot(rows - centre[0], columns - centre[1])
        mask[distance < radius + 3] = 2
        mask[distance < radius] = 1
        mask[(rows > centre[0] + radius + 3) & (abs(columns - centre[1]) < 4)] = 3
    levels = np.array([40, 90, 200, 120])
    images = np.clip(levels[masks] + rng.normal(0, 20, masks.shape), 0, 255).astype(np.uint8)
    return images[:, None], masks


def write_disks(place: Path, train: int, val: int, size: int = 32) -> None:
    """data/prepared/camus.parquet below `place`, of so many `disks` in each split."""
    splits, samples = {}, []
    for split, count in (("train", train), ("val", val)):
        for number, (image, mask) in enumerate(zip(*disks(count, size), strict=True)):
            name = f"{split}{number:03d}"
            splits[name] = split
            samples.append(Sample(name, name, "4CH", "ED", 0, image[0], mask, (1.0, 1.0)))
    counts = {"train": train, "val": val, "test": 0}
    facts = {"source": "disks", "dataset": "camus", "synthetic": True, "patients": counts}
    facts |= {"cases": counts, "split": {"method": "by hand"}, "notes": [], "skipped": []}
    write_prepared(place / "data/prepared/camus.parquet", samples, splits, facts)
