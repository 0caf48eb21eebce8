"""The supported datasets, with one file each. Add a new dataset to `DATASETS`."""

from __future__ import annotations

import numpy as np

from heartseg.datasets.camus import CAMUS
from heartseg.datasets.mmode import MMODE
from heartseg.datasets.mmode_quality import MMODE_QUALITY
from heartseg.datasets.spec import DatasetSpec

DATASETS: dict[str, DatasetSpec] = {spec.name: spec for spec in (CAMUS, MMODE, MMODE_QUALITY)}


def structure_mask(labels: np.ndarray, dataset: str, structure: str) -> np.ndarray:
    """Return the mask of a structure, bool of the shape of `labels`.

    Args:
        labels: Label map.
        dataset: Name of the dataset.
        structure: Name of the structure, a key of `DatasetSpec.structures`.
    """
    return np.isin(labels, DATASETS[dataset].structures[structure])
