"""Clinical errors on the validation images at the network's resolution."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from heartseg.data.species import SPECIES, likely_species
from heartseg.datasets import DATASETS
from heartseg.datasets.mmode import Mmode
from heartseg.metrics.ejection import biplane_ef
from heartseg.metrics.mmode import window_row

NO_EF_ERROR = 100.0
"""Error, in points, if the ejection fraction cannot be measured in the predicted masks."""


class ClinicalValidation:
    """Clinical errors of predicted masks relative to the reference masks.

    Args:
        dataset: "camus" or "mmode".
        reference: Reference label maps uint8 (N, S, S), resized to the network's resolution.
        about: N rows of the prepared dataset with patient, view, phase, species, and at the
            original resolution height, width, spacing_row, spacing_col. Without the column species,
            it is inferred from the size of the LV in the reference masks.
    """

    def __init__(self, dataset: str, reference: np.ndarray, about: pd.DataFrame):
        self.dataset = dataset
        self.reference = reference
        self.about = about.reset_index(drop=True)
        sizes = np.array(reference.shape[1:]) if len(reference) else np.ones(2)
        self.spacings = self.about[["spacing_row", "spacing_col"]].to_numpy() * (
            self.about[["height", "width"]].to_numpy() / sizes
        )
        if dataset == "mmode" and "species" not in self.about:
            species = likely_species(reference == Mmode.LV, self.spacings[:, 0])
            self.about = self.about.assign(species=species.name)

    def count(self) -> int:
        """Return the number of values that can be measured in the reference masks."""
        return len(self._errors(self.reference))

    def errors(self, predicted: np.ndarray) -> dict[str, float]:
        """Compute the mean absolute error.

        If a value cannot be measured in the predicted masks, an EF has an error of 100 points, and
        a diameter counts as 0 mm.

        Args:
            predicted: Predicted label maps uint8 (N, S, S).

        Returns:
            ef_mae in points (CAMUS: biplane Simpson, over patients with both views and phases),
            or lvid_mae in mm (M-mode: over LVIDd and LVIDs of all windows); NaN without values.
        """
        errors = self._errors(predicted)
        name = DATASETS[self.dataset].errors[0]
        return {name: float(np.mean(errors)) if errors else float("nan")}

    def _errors(self, predicted: np.ndarray) -> list[float]:
        errors = self._ef_errors if DATASETS[self.dataset].apical else self._diameter_errors
        return list(errors(predicted))

    def _ef_errors(self, predicted: np.ndarray) -> Iterator[float]:
        for _, own in self.about.groupby("patient"):
            rows = {
                (str(view), str(phase)): i
                for i, view, phase in zip(own.index, own["view"], own["phase"], strict=True)
            }
            reference, predicted_ef = (
                biplane_ef({key: (masks[i], self._spacing(i)) for key, i in rows.items()})
                for masks in (self.reference, predicted)
            )
            if np.isfinite(reference):
                error = abs(predicted_ef - reference)
                yield error if np.isfinite(error) else NO_EF_ERROR

    def _diameter_errors(self, predicted: np.ndarray) -> Iterator[float]:
        for i in range(len(self.reference)):
            species = SPECIES[self.about["species"][i]]
            row = window_row(predicted[i], self.reference[i], self._spacing(i), species)
            for name in ("lvidd_mm", "lvids_mm"):
                reference = row[f"{name}_reference"]
                if np.isfinite(reference):
                    yield abs(np.nan_to_num(row[f"{name}_predicted"]) - reference)

    def _spacing(self, row: int) -> tuple[float, float]:
        """Return the spacing of an image at the network's resolution."""
        return float(self.spacings[row, 0]), float(self.spacings[row, 1])
