"""Files beside an apical sequence: its curves, and its reference label maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from heartseg.data.images import read_labels, stem_of, suffix_of
from heartseg.datasets import DATASETS
from heartseg.errors import InputError
from heartseg.paths import write_atomically, write_text
from heartseg.text import csv_text


def save_curves(curves: pd.DataFrame, output: Path) -> None:
    """Write NAME_curves.csv and NAME_curves.png.

    Args:
        curves: Table of `heartseg.metrics.sequence.lv_curves`.
        output: Path of the results without their endings.
    """
    from heartseg.report.figures import save
    from heartseg.report.sequence_curves import curve_figure

    table, figure = (output.with_name(f"{output.name}_curves.{end}") for end in ("csv", "png"))
    write_text(table, csv_text(curves))
    write_atomically(lambda path: save(curve_figure(curves, output.name), path), figure)


def read_reference(file: Path, shape: tuple[int, ...]) -> tuple[np.ndarray | None, list[str]]:
    """Read the reference label maps NAME_gt beside a sequence.

    Args:
        file: Path of the sequence.
        shape: Shape of its frames, (T, H, W).

    Returns:
        The label maps, uint8 (T, H, W), or None if there are none or they cannot be used, and a
        list of problems.
    """
    path = file.with_name(f"{stem_of(file)}_gt{suffix_of(file)}")
    if not path.exists():
        return None, []
    try:
        reference = read_labels(path, DATASETS["camus"].labels).frames
    except InputError as error:
        return None, [str(error)]
    if reference.shape != shape:
        return None, [
            f"{path}: has shape {reference.shape}, its image {shape}; export it on the same grid"
        ]
    return reference, []
