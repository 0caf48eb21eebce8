"""The description of a dataset: everything about it that differs from the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal, NamedTuple


class HeadlineItem(NamedTuple):
    """A number of the headline."""

    key: str
    """Its place in report.json, with dots between levels."""
    decimals: int
    """The decimals that are worth reading."""
    text: str
    """Its meaning, with the unit."""


@dataclass(frozen=True)
class View:
    """A view of an image for test-time augmentation: mirrored left and right, or rotated and scaled
    about its centre."""

    mirror: bool = False
    rotate_degrees: float = 0.0
    scale: float = 1.0


UNCHANGED = View()


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """What heartseg knows of a dataset.

    Attributes:
        name: as in params.yaml.
        task: what a network gives: a label per pixel, or one for a whole window.
        geometry: apical: rows and columns in mm, several views of a patient; mmode: depth in mm by
            time in s.
        labels: the values of a label map, background first.
        label_texts: what each label means, by its name.
        structures: the reported structures, and the labels that make up each.
        mean_of: the structures of the mean Dice; each pixel counts once.
        contours: the structures whose outlines are drawn on an image.
        case_metrics: what is measured of each case and structure: dice, hd95_mm, msd_mm.
        headline: the numbers by which models are compared; see `HeadlineItem`. metrics.json has
            them, MLflow's test metrics, and `register.*` in params.yaml may name them. Errors are
            against the reference masks unless the text says otherwise. No name is used by two
            datasets, so that DVC need not put a path before it.
        errors: validation metrics that a sweep can minimise, besides val_loss.
        rates: validation metrics that a sweep can maximise, besides Dice.
        views: of test-time augmentation; each costs a forward pass.
        postprocesses: that `evaluate` chooses from.
        subjects: what the patients are called.
        axes: texts of rows and columns in figures.
        units: of the columns of the prepared dataset.
        clinical: texts of the clinical errors on the model card, by their key in report.json.
        charts: the clinical quantities whose agreement is drawn: text and unit.
        purpose: what a model does, after "The model".
        images: what it takes.
        limits: sentences for the model card.
        licence: of the data, a sentence for the model card.
        reference: the publication.
    """

    name: str
    task: Literal["segmentation", "classification"] = "segmentation"
    geometry: Literal["apical", "mmode"]
    labels: type[IntEnum]
    label_texts: dict[str, str]
    structures: dict[str, tuple[int, ...]]
    mean_of: tuple[str, ...]
    contours: tuple[str, ...]
    case_metrics: tuple[str, ...]
    headline: dict[str, HeadlineItem]
    errors: tuple[str, ...] = ()
    rates: tuple[str, ...] = ()
    views: tuple[View, ...] = (UNCHANGED,)
    postprocesses: tuple[str, ...] = ("none",)
    subjects: str
    axes: tuple[str, str]
    units: dict[str, str]
    clinical: dict[str, str] = field(default_factory=dict)
    charts: dict[str, tuple[str, str]] = field(default_factory=dict)
    purpose: str
    images: str
    limits: tuple[str, ...]
    licence: str = ""
    reference: str

    @property
    def apical(self) -> bool:
        return self.geometry == "apical"

    @property
    def classifies(self) -> bool:
        return self.task == "classification"

    @property
    def dice_metrics(self) -> list[str]:
        """Names of the validation Dice of each label but the background."""
        return [f"dice_{label.name.lower()}" for label in self.labels][1:]
