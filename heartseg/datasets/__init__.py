"""The datasets that heartseg knows, a file each. To add one, add its file and name it here."""

from __future__ import annotations

import numpy as np

from heartseg.datasets.camus import CAMUS
from heartseg.datasets.mmode import MMODE
from heartseg.datasets.mmode_quality import MMODE_QUALITY
from heartseg.datasets.spec import DatasetSpec

DATASETS: dict[str, DatasetSpec] = {spec.name: spec for spec in (CAMUS, MMODE, MMODE_QUALITY)}


def structure_mask(labels: np.ndarray, dataset: str, structure: str) -> np.ndarray:
    """Boolean mask of one structure, of the shape of `labels`."""
    return np.isin(labels, DATASETS[dataset].structures[structure])
