"""Answers of the service: contours, measurements and pictures of segmented images."""

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
"""Pixels of a picture's longer side at most."""
HERE = Path()
NAMES = ("image", "patient", "view", "phase", "frame", "folder")

Values = dict[str, bool | float | str | None]


class Contour(BaseModel):
    """A structure's outline, closed unless it leaves the image."""

    structure: str
    points: list[tuple[float, float]] = Field(
        description="x, y in pixels from the image's upper left corner"
    )


class FrameAnswer(BaseModel):
    """One segmented frame."""

    number: int = Field(description="from 1")
    contours: list[Contour]
    measured: Values = Field(description="lengths (mm), areas (mm2), volume (mL), where known")
    flags: dict[str, bool] = Field(
        description="apical views: what is odd about the label map, by the names in GET /model, "
        "and whether it is `plausible`; without a scale `edge` alone"
    )
    picture: str | None = Field(description="the frame as a data URL of a PNG, if asked for")


class ImageAnswer(BaseModel):
    """One file."""

    name: str
    height: int
    width: int
    frames_in_file: int
    spacing: tuple[float, float] | None = Field(description="rows, columns: mm, mm; M-mode: mm, s")
    spacing_source: Literal["file", "request"] | None = Field(description="who states the spacing")
    no_scale: str | None = Field(description="why there is no spacing, and so nothing in mm or mL")
    notes: list[str] = Field(description="what was noticed while the file was read")
    view: str | None
    phase: str | None
    frames: list[FrameAnswer] = Field(description="of a model for sequences the two ends alone")
    summary: Values = Field(
        description="sequences: volumes and EF by area-length; M-mode: diameters, FS, heart rate"
    )


class Answer(BaseModel):
    """What POST /predict answers."""

    model: str
    version: str
    dataset: str
    seconds: float = Field(description="from the whole upload to this answer")
    images: list[ImageAnswer]
    clinical: Values | None = Field(
        description="volumes, EF and more, where both views at both phases are given; `plausible` "
        "is false if one of the flags is set; without a scale the EF and the flag `edge` alone"
    )
    clinical_missing: str | None = Field(description="why there are none, or the EF alone")


@dataclass(frozen=True)
class Segmented:
    """A file and its label maps.

    Attributes:
        name: as uploaded.
        view, phase: as chosen by the user, or told by the name; None where neither says.
        frames: uint8 (T, H, W).
        numbers: (K,) the frames that were segmented, from 0.
        labels: uint8 (K, H, W).
        spacing: (row, column), mm; of M-mode mm and s.
        spacing_source: "file" or "request"; None if `spacing` is None.
        no_scale: why `spacing` is None.
        notes: what was noticed while the file was read.
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
        """By the name that a CAMUS release would give it, where view and phase are known."""
        known = self.view and self.phase
        return Job(
            Path(self.name), Path(f"patient_{self.view}_{self.phase}" if known else self.name)
        )


def patient_in(name: str) -> str:
    """The patient in a name of the CAMUS release, "" in another one."""
    named = parse_frame(stem_of(Path(name)))
    return named.patient if named else ""


def describe(one: Segmented, dataset: str, species: str, pictures: bool) -> ImageAnswer:
    """A file's contours, measurements and, if wanted, pictures."""
    rows: list[dict[str, Any]] = [{} for _ in one.numbers]
    flags: list[dict[str, Any]] = [{} for _ in one.numbers]
    summary: dict[str, Any] = {}
    if DATASETS[dataset].apical:
        rows = frame_rows(one.job, one.labels, one.numbers, one.spacing, HERE)
        add_flags(flags, one.labels, one.spacing, one.frames[one.numbers])
        if one.spacing is not None and len(one.frames) > 1:
            summary = summarise_curves(lv_curves(one.labels, one.spacing, numbers=one.numbers + 1))
    elif one.spacing is not None and not DATASETS[dataset].classifies:
        heart = SPECIES[species]
        slowest, fastest = heart.rates
        limits = {"minimal_rate": slowest, "maximal_rate": fastest}
        values = measure(one.labels[0] > 0, one.spacing, **limits, species=heart)
        summary = asdict(values) | {"volume_unit": heart.volume_unit}
    frames = [
        FrameAnswer(
            number=int(number) + 1,
            contours=[
                Contour(structure=name, points=points.round(2).tolist())
                for name, points in outlines(mask, dataset)
            ],
            measured=_known(row),
            flags={name: bool(value) for name, value in odd.items()},
            picture=_picture(one.frames[number]) if pictures else None,
        )
        for number, mask, row, odd in zip(one.numbers, one.labels, rows, flags, strict=True)
    ]
    return ImageAnswer(
        name=one.name,
        height=one.frames.shape[1],
        width=one.frames.shape[2],
        frames_in_file=len(one.frames),
        spacing=one.spacing,
        spacing_source=one.spacing_source,
        no_scale=one.no_scale,
        notes=list(one.notes),
        view=one.view,
        phase=one.phase,
        frames=frames,
        summary=_known(summary),
    )


def clinical(files: Sequence[Segmented]) -> tuple[Values | None, str | None]:
    """The indices of a patient's four images, and why there are none or the EF alone."""
    wanted = [(view, phase) for view in VIEWS for phase in PHASES]
    given = [(one.view, one.phase) for one in files if len(one.labels) == 1]
    absent = [f"{view} {phase}" for view, phase in wanted if (view, phase) not in given]
    if absent:
        return None, f"no single image of {', '.join(absent)}"
    patients = {patient_in(one.name) for one in files} - {""}
    if len(patients) > 1:
        return None, f"the images are of several patients: {', '.join(sorted(patients))}"
    masks = [Mask(one.job, one.labels[0], one.spacing, one.frames[one.numbers[0]]) for one in files]
    rows = clinical_rows(masks, HERE)
    without = [one.name for one in files if one.spacing is None]
    missing = (
        f"no scale is known for {', '.join(without)}; give mm_per_row and mm_per_column"
        if without
        else None
    )
    return (_known(rows[0]) if rows else None), missing


def _known(row: dict[str, Any]) -> Values:
    """The values alone, None for those that could not be measured: JSON has no NaN."""
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
