"""Measure a model on every image of a folder with masks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from heartseg.checks.dataset import check_cases
from heartseg.config.data import CamusDataset, MmodeDataset
from heartseg.data.camus import reader as camus
from heartseg.data.prepared import Sample
from heartseg.data.source import Survey
from heartseg.data.windows import reader as mmode
from heartseg.datasets import DATASETS, structure_mask
from heartseg.errors import InputError
from heartseg.metrics.overlap import mask_dice, mask_iou, mask_mse
from heartseg.tracking.pulled import PulledModel

METRICS = ("dice", "iou", "mse")


def measure_folder(
    pulled: PulledModel, config: CamusDataset | MmodeDataset, folder: Path, notes: list[str]
) -> list[dict[str, Any]]:
    """Return the rows of `measure_image` for all cases of a folder.

    Args:
        pulled: Registered model.
        config: Section of the model's dataset in params.yaml.
        folder: Folder in the layout that `heartseg prepare` reads.
        notes: List to which notes on unusual files are added.

    Raises:
        InputError: Files are bad. The error lists all of them.
    """
    dataset = pulled.metadata["dataset"]
    survey = survey_folder(config, folder)
    notes += survey.notes
    cases, problems = check_cases(dataset, survey.cases, os.cpu_count() or 1, notes)
    if problems := list(dict.fromkeys([*survey.problems, *problems])):
        listing = "\n".join(f"  - {problem}" for problem in problems)
        raise InputError(f"{len(problems)} problem(s) in {folder}:\n{listing}")
    samples = (case.read() for case in cases)
    return [
        row
        for sample in samples
        for row in measure_image(dataset, sample, predict(pulled, sample.image))
    ]


def survey_folder(config: CamusDataset | MmodeDataset, folder: Path) -> Survey:
    """List the cases of a folder with the layout of the dataset of `config`."""
    if isinstance(config, MmodeDataset):
        # Neither animal nor scale is needed here, so the file names need not contain the animal.
        any_name = {"source": folder, "animal_pattern": "(?P<animal>.+)"}
        return mmode.survey(config.model_copy(update=any_name), any_scale=True)
    return camus.survey(folder, use_lists=False, spacing=config.spacing)


def predict(pulled: PulledModel, image: np.ndarray) -> np.ndarray:
    """Return the label map, uint8 (H, W), of an image, uint8 (H, W)."""
    channels = pulled.metadata["recipe"]["model"]["in_channels"]
    return pulled.predict(image[None, None].repeat(channels, axis=1))[0]


def measure_image(dataset: str, sample: Sample, labels: np.ndarray) -> list[dict[str, Any]]:
    """Compare a predicted label map with the reference mask.

    Args:
        dataset: Name of the dataset.
        sample: Image with its reference mask.
        labels: Predicted label map, uint8 (H, W).

    Returns:
        A row per structure: case_id, structure, dice, iou, mse, and numbers of pixels (pixels, tp,
        fp, fn).
    """
    rows = []
    for structure in DATASETS[dataset].structures:
        predicted = structure_mask(labels, dataset, structure)
        reference = structure_mask(sample.mask, dataset, structure)
        rows.append(
            {
                "case_id": sample.case_id,
                "structure": structure,
                "dice": mask_dice(predicted, reference),
                "iou": mask_iou(predicted, reference),
                "mse": mask_mse(predicted, reference),
                "pixels": predicted.size,
                "tp": int((predicted & reference).sum()),
                "fp": int((predicted & ~reference).sum()),
                "fn": int((~predicted & reference).sum()),
            }
        )
    return rows


def overall(table: pd.DataFrame) -> pd.DataFrame:
    """Return Dice, IoU and MSE of each structure, once as means and once over all pixels.

    Args:
        table: Rows of `measure_image`.

    Returns:
        A table with the index (structure, over), where `over` is "mean of images" or "all pixels".
    """
    groups = table.groupby("structure", sort=False)
    sums = groups[["pixels", "tp", "fp", "fn"]].sum()
    wrong = sums["fp"] + sums["fn"]
    of_pixels = pd.DataFrame(
        {
            "dice": (2 * sums["tp"] / (2 * sums["tp"] + wrong)).fillna(1.0),
            "iou": (sums["tp"] / (sums["tp"] + wrong)).fillna(1.0),
            "mse": wrong / sums["pixels"],
        }
    )
    of_images = groups[list(METRICS)].mean()
    both = pd.concat({"mean of images": of_images, "all pixels": of_pixels}, names=["over"])
    return both.swaplevel().sort_index(level=0, sort_remaining=False)
