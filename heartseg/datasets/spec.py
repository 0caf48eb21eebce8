"""Description of a dataset: all properties in which datasets differ."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal, NamedTuple


class HeadlineItem(NamedTuple):
    """A number of the headline."""

    key: str
    """Path of the number in report.json, with dots between levels."""
    decimals: int
    """Number of significant decimals."""
    text: str
    """Description with the unit."""


@dataclass(frozen=True)
class View:
    """Transformation of an image for test-time augmentation.

    Attributes:
        mirror: Whether the image is mirrored horizontally.
        rotate_degrees: Rotation about the centre in degrees.
        scale: Scale about the centre.
    """

    mirror: bool = False
    rotate_degrees: float = 0.0
    scale: float = 1.0


UNCHANGED = View()


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """Description of a dataset.

    Attributes:
        name: Name in params.yaml.
        task: Whether a network predicts a label per pixel or one label per window.
        geometry: "apical" (rows and columns in mm, several views of a patient) or "mmode" (depth in
            mm by time in s).
        labels: Values of a label map, background first.
        label_texts: Meaning of each label, by its name.
        structures: Labels of each reported structure.
        mean_of: Structures that are averaged in the mean Dice. They do not overlap.
        contours: Structures whose outlines are drawn on an image.
        case_metrics: Metrics of each case and structure: dice, hd95_mm, msd_mm.
        headline: Numbers by which models are compared, in metrics.json and in the test metrics of
            MLflow. `register.*` in params.yaml may contain their names. Errors are relative to the
            reference masks, unless the text states otherwise. The names of all datasets differ, so
            DVC can show them without a path.
        errors: Validation metrics that a sweep can minimise, besides val_loss.
        rates: Validation metrics that a sweep can maximise, besides Dice.
        views: Views of test-time augmentation. Each needs a forward pass.
        postprocesses: Postprocessing methods from which `evaluate` selects.
        subjects: Word for patients in texts.
        axes: Labels of rows and columns in figures.
        units: Units of the columns of the prepared dataset.
        clinical: Texts of the clinical errors on the model card, by their key in report.json.
        charts: Text and unit of the clinical quantities whose agreement is drawn.
        purpose: Purpose of a model, as the rest of a sentence that begins with "The model".
        images: Description of the images.
        limits: Sentences on limitations for the model card.
        licence: Sentence on the licence of the data for the model card.
        reference: Publication.
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
