"""Measure a registered model on a folder with masks: Dice, IoU and MSE, per image and overall.

The folder is laid out as `prepare` reads it: img/ and mask/ for an M-mode model, a CAMUS release
for a CAMUS model. Everything in it is measured, whatever the split.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartseg.cli import run_command
from heartseg.config.params import load_params
from heartseg.datasets import DATASETS
from heartseg.errors import InputError, catch_write_errors, printing_notes
from heartseg.text import csv_text

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from heartseg.config.params import CamusDataset, MmodeDataset
    from heartseg.data.prepared import Sample
    from heartseg.data.source import Survey
    from heartseg.tracking.pulled import PulledModel

METRICS = ("dice", "iou", "mse")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="heartseg test", description=__doc__)
    parser.add_argument("model", help="for example models:/heartseg-mmode@champion")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--out", type=Path, metavar="CSV", help="a row per image and structure")
    options = parser.parse_args(argv)
    datasets = load_params().datasets
    import pandas as pd

    from heartseg.models.inputs import frames_of
    from heartseg.tracking.client import tracking_uri
    from heartseg.tracking.pulled import pull

    pulled = pull(tracking_uri(Path.cwd()), options.model)
    dataset = pulled.metadata["dataset"]
    if DATASETS[dataset].classifies:
        raise InputError(f"{options.model} classifies windows; measure it by `heartseg evaluate`")
    if (frames := frames_of(pulled.metadata["recipe"]["model"]["in_channels"])) > 1:
        raise InputError(
            f"{options.model} takes sequences of {frames} frames, and single images have masks "
            "here; measure it by `heartseg evaluate`"
        )
    with printing_notes() as notes:
        rows = measure_folder(pulled, datasets.of(dataset), options.folder, notes)
    table = pd.DataFrame(rows)
    if options.out is not None:
        write(table, options.out)
    else:
        print(table.drop(columns=["tp", "fp", "fn"]).to_string(index=False, float_format="%.4f"))
    print(f"\n{options.model} on {table['case_id'].nunique()} image(s) of {options.folder}")
    print(overall(table).to_string(float_format="%.4f"))


def measure_folder(
    pulled: PulledModel, config: CamusDataset | MmodeDataset, folder: Path, notes: list[str]
) -> list[dict[str, Any]]:
    """Rows of `measure_image` for all cases of a folder.

    Args:
        pulled: the model.
        config: of its dataset, in params.yaml.
        folder: laid out as `prepare` reads it.
        notes: gets what `prepare` notes about the files.

    Raises:
        InputError: with every bad file of the folder.
    """
    from heartseg.prepare import check

    dataset = pulled.metadata["dataset"]
    found = survey(config, folder)
    notes += found.notes
    cases, problems = check(dataset, found.cases, os.cpu_count() or 1, notes)
    if problems := list(dict.fromkeys([*found.problems, *problems])):
        listing = "\n".join(f"  - {problem}" for problem in problems)
        raise InputError(f"{len(problems)} problem(s) in {folder}:\n{listing}")
    samples = (case.read() for case in cases)
    return [
        row
        for sample in samples
        for row in measure_image(dataset, sample, predict(pulled, sample.image))
    ]


def survey(config: CamusDataset | MmodeDataset, folder: Path) -> Survey:
    """Survey a folder, read as the dataset of `config` with this source."""
    from heartseg.config.params import MmodeDataset
    from heartseg.data.camus import reader as camus
    from heartseg.data.windows import reader as mmode

    if isinstance(config, MmodeDataset):
        # Neither whose heart it is nor the scale counts here, so file names need not tell.
        any_name = {"source": folder, "animal_pattern": "(?P<animal>.+)"}
        return mmode.survey(config.model_copy(update=any_name), any_scale=True)
    return camus.survey(folder, use_lists=False, spacing=config.spacing)


def predict(pulled: PulledModel, image: np.ndarray) -> np.ndarray:
    """Label map uint8 (H, W) of an image uint8 (H, W)."""
    channels = pulled.metadata["recipe"]["model"]["in_channels"]
    return pulled.predict(image[None, None].repeat(channels, axis=1))[0]


def measure_image(dataset: str, sample: Sample, labels: np.ndarray) -> list[dict[str, Any]]:
    """A row per structure: case_id, structure, Dice, IoU and MSE of its mask, and its pixels."""
    from heartseg.datasets import structure_mask
    from heartseg.metrics.overlap import mask_dice, mask_iou, mask_mse

    rows = []
    for structure in DATASETS[dataset].structures:
        found = structure_mask(labels, dataset, structure)
        real = structure_mask(sample.mask, dataset, structure)
        rows.append(
            {
                "case_id": sample.case_id,
                "structure": structure,
                "dice": mask_dice(found, real),
                "iou": mask_iou(found, real),
                "mse": mask_mse(found, real),
                "pixels": found.size,
                "tp": int((found & real).sum()),
                "fp": int((found & ~real).sum()),
                "fn": int((~found & real).sum()),
            }
        )
    return rows


def overall(table: pd.DataFrame) -> pd.DataFrame:
    """Dice, IoU and MSE of each structure: two rows, the mean of the images and the value over
    all their pixels together."""
    import pandas as pd

    together = table.groupby("structure", sort=False)
    sums = together[["pixels", "tp", "fp", "fn"]].sum()
    wrong = sums["fp"] + sums["fn"]
    of_pixels = pd.DataFrame(
        {
            "dice": (2 * sums["tp"] / (2 * sums["tp"] + wrong)).fillna(1.0),
            "iou": (sums["tp"] / (sums["tp"] + wrong)).fillna(1.0),
            "mse": wrong / sums["pixels"],
        }
    )
    of_images = together[list(METRICS)].mean()
    both = pd.concat({"mean of images": of_images, "all pixels": of_pixels}, names=["over"])
    return both.swaplevel().sort_index(level=0, sort_remaining=False)


def write(table: pd.DataFrame, path: Path) -> None:
    """The table as CSV, unrounded; InputError where it cannot be written."""
    with catch_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(csv_text(table), encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
