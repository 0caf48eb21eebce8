"""The responses of the service: contours, measurements and pictures of segmented images."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, Field

from heartseg.data.camus.names import parse_frame
from heartseg.data.images import stem_of
from heartseg.data.species import SPECIES
from heartseg.datasets import DATASETS
from heartseg.datasets.camus import PHASES, VIEWS
from heartseg.metrics import Spacing
from heartseg.metrics.mmode import measure
from heartseg.metrics.sequence import lv_curves, summarise_curves
from heartseg.prediction.files import Job
from heartseg.prediction.tables import Mask, add_flags, clinical_rows, frame_rows
from heartseg.report.overlay import outlines

PICTURE_SIDE = 800
"""Largest number of pixels of a picture's longer side."""
NO_FOLDER = Path()
NAMES = ("image", "patient", "view", "phase", "frame", "folder")

Values = dict[str, bool | float | str | None]


class Contour(BaseModel):
    """The outline of a structure. It is closed unless it leaves the image."""

    structure: str
    points: list[tuple[float, float]] = Field(
        description="x, y in pixels from the image's upper left corner"
    )


class FrameAnswer(BaseModel):
    """One segmented frame."""

    number: int = Field(description="from 1")
    contours: list[Contour]
    measured: Values = Field(description="lengths (mm), areas (mm2) and volume (mL), if known")
    flags: dict[str, bool] = Field(
        description="apical views: the flags described in GET /model, and whether the label map "
        "is `plausible`; only `edge` if no scale is known"
    )
    picture: str | None = Field(description="the frame as a data URL of a PNG, if requested")


class ImageAnswer(BaseModel):
    """One file."""

    name: str
    height: int
    width: int
    frames_in_file: int
    spacing: tuple[float, float] | None = Field(
        description="of rows and columns in mm; M-mode: mm and s"
    )
    spacing_source: Literal["file", "request"] | None = Field(description="source of the spacing")
    no_scale: str | None = Field(
        description="why there is no spacing, and thus no value in mm or mL"
    )
    notes: list[str] = Field(description="remarks of the reader of the file")
    view: str | None
    phase: str | None
    frames: list[FrameAnswer] = Field(
        description="only first and last frame if the model takes sequences"
    )
    summary: Values = Field(
        description="sequences: volumes and EF by area-length; M-mode: diameters, FS, heart rate"
    )


class Answer(BaseModel):
    """The response of POST /predict."""

    model: str
    version: str
    dataset: str
    seconds: float = Field(description="from the end of the upload to this response")
    images: list[ImageAnswer]
    clinical: Values | None = Field(
        description="volumes, EF and more if both views at both phases are given; `plausible` is "
        "false if one of the flags is set; only EF and the flag `edge` if no scale is known"
    )
    clinical_missing: str | None = Field(
        description="why they are missing, or why there is only the EF"
    )


@dataclass(frozen=True)
class Segmented:
    """An uploaded file and its label maps.

    Attributes:
        name: Name of the uploaded file.
        view, phase: As given in the request, else as found in the name; None if unknown.
        frames: Gray values, uint8 (T, H, W).
        numbers: Indices of the segmented frames, (K,), from 0.
        labels: Label maps, uint8 (K, H, W).
        spacing: (row, column) in mm; in mm and s for M-mode.
        spacing_source: "file" or "request"; None if `spacing` is None.
        no_scale: Reason why `spacing` is None.
        notes: Remarks of the reader of the file.
    """

    name: str
    view: str | None
    phase: str | None
    frames: np.ndarray
    numbers: np.ndarray
    labels: np.ndarray
    spacing: Spacing | None
    spacing_source: Literal["file", "request"] | None
    no_scale: str | None
    notes: Sequence[str]

    @property
    def job(self) -> Job:
        """The job of this file, with a name of the CAMUS release if view and phase are known."""
        known = self.view and self.phase
        return Job(
            Path(self.name), Path(f"patient_{self.view}_{self.phase}" if known else self.name)
        )


def patient_in(name: str) -> str:
    """Return the patient in a file name of the CAMUS release, or "" for other names."""
    named = parse_frame(stem_of(Path(name)))
    return named.patient if named else ""


def describe(file: Segmented, dataset: str, species: str, pictures: bool) -> ImageAnswer:
    """Return the contours, the measurements and, if requested, the pictures of a file."""
    rows: list[dict[str, Any]] = [{} for _ in file.numbers]
    flags: list[dict[str, Any]] = [{} for _ in file.numbers]
    summary: dict[str, Any] = {}
    if DATASETS[dataset].apical:
        rows = frame_rows(file.job, file.labels, file.numbers, file.spacing, NO_FOLDER)
        add_flags(flags, file.labels, file.spacing, file.frames[file.numbers])
        if file.spacing is not None and len(file.frames) > 1:
            summary = summarise_curves(
                lv_curves(file.labels, file.spacing, numbers=file.numbers + 1)
            )
    elif file.spacing is not None and not DATASETS[dataset].classifies:
        heart = SPECIES[species]
        slowest, fastest = heart.rates
        limits = {"minimal_rate": slowest, "maximal_rate": fastest}
        values = measure(file.labels[0] > 0, file.spacing, **limits, species=heart)
        summary = asdict(values) | {"volume_unit": heart.volume_unit}
    frames = [
        FrameAnswer(
            number=int(number) + 1,
            contours=[
                Contour(structure=name, points=points.round(2).tolist())
                for name, points in outlines(mask, dataset)
            ],
            measured=_known(row),
            flags={name: bool(value) for name, value in own_flags.items()},
            picture=_picture(file.frames[number]) if pictures else None,
        )
        for number, mask, row, own_flags in zip(file.numbers, file.labels, rows, flags, strict=True)
    ]
    return ImageAnswer(
        name=file.name,
        height=file.frames.shape[1],
        width=file.frames.shape[2],
        frames_in_file=len(file.frames),
        spacing=file.spacing,
        spacing_source=file.spacing_source,
        no_scale=file.no_scale,
        notes=list(file.notes),
        view=file.view,
        phase=file.phase,
        frames=frames,
        summary=_known(summary),
    )


def clinical(files: Sequence[Segmented]) -> tuple[Values | None, str | None]:
    """Return the clinical indices of a patient's four images.

    Returns:
        The indices, or None if they cannot be computed. Then the reason if there are no indices or
        only the EF, or None.
    """
    required = [(view, phase) for view in VIEWS for phase in PHASES]
    given = [(file.view, file.phase) for file in files if len(file.labels) == 1]
    absent = [f"{view} {phase}" for view, phase in required if (view, phase) not in given]
    if absent:
        return None, f"no single image of {', '.join(absent)}"
    patients = {patient_in(file.name) for file in files} - {""}
    if len(patients) > 1:
        return None, f"the images belong to several patients: {', '.join(sorted(patients))}"
    masks = [
        Mask(file.job, file.labels[0], file.spacing, file.frames[file.numbers[0]]) for file in files
    ]
    rows = clinical_rows(masks, NO_FOLDER)
    unscaled = [file.name for file in files if file.spacing is None]
    missing = None
    if unscaled:
        missing = f"no scale is known for {', '.join(unscaled)}; set mm_per_row and mm_per_column"
    return (_known(rows[0]) if rows else None), missing


def _known(row: dict[str, Any]) -> Values:
    """Return the values of a row without `NAMES`, and None for NaN, which JSON does not have."""
    return {
        name: value
        if isinstance(value, str | bool)
        else float(value)
        if math.isfinite(value)
        else None
        for name, value in row.items()
        if name not in NAMES
    }


def _picture(frame: np.ndarray) -> str:
    picture = Image.fromarray(frame)
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.BILINEAR)
    content = io.BytesIO()
    picture.save(content, "PNG")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
