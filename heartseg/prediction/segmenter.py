"""From files to files: read images, segment them in batches, write what comes of them."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from heartseg.data.camus.sequences import frame_rate
from heartseg.data.images import (
    Images,
    read_images,
    read_labels,
    read_uncertainty,
    stem_of,
    suffix_of,
)
from heartseg.datasets import DATASETS
from heartseg.errors import InputError, catch_write_errors
from heartseg.metrics import Spacing
from heartseg.metrics.plausibility import PATIENT_FLAGS
from heartseg.metrics.sequence import lv_curves, summarise_curves
from heartseg.metrics.uncertainty import normalised_entropy
from heartseg.models.inputs import input_stacks, segmented_frames
from heartseg.paths import write_atomically, write_text
from heartseg.prediction.files import Job
from heartseg.prediction.tables import Mask, add_flags, clinical_rows, frame_rows
from heartseg.report.overlay import save_overlay
from heartseg.text import csv_text

if TYPE_CHECKING:
    from heartseg.models.package import Package

Predict = Callable[[np.ndarray], np.ndarray | tuple[np.ndarray, np.ndarray]]

VOLUMES = ("_ml", "_ml_reference")
FRAMES_AT_ONCE = 8  # bounds the memory for long sequences
PIXELS_AT_ONCE = 2**22  # and for large images


@dataclass
class Outcome:
    """What came of some files.

    Attributes:
        done, skipped: number of files segmented, and of those whose results were there.
        problems: a line per file that could not be segmented.
        notes: (path, what was noticed in it as a clause about the file).
        images, patients, sequences: rows of the tables of these names.
    """

    done: int = 0
    skipped: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)
    patients: list[dict[str, Any]] = field(default_factory=list)
    sequences: list[dict[str, Any]] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        """Take another's numbers and rows."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class Opened:
    """A file on its way.

    Attributes:
        numbers: (K,) the frames that the model segments, from 0.
        labels: label maps uint8 (K, H, W); empty until they are there.
        fresh: they are not from an earlier run.
        entropies: (H, W) of each, from 0 to 1, of fresh label maps if uncertainty was asked for.
    """

    job: Job
    images: Images
    numbers: np.ndarray
    labels: np.ndarray
    fresh: bool
    entropies: list[np.ndarray] = field(default_factory=list)

    @property
    def target(self) -> Path:
        """The file of the label maps."""
        return self._named("seg")

    @property
    def uncertainty(self) -> Path:
        """The file of the uncertainty."""
        return self._named("uncertainty")

    def _named(self, what: str) -> Path:
        return self.job.place.with_name(f"{self.job.place.name}_{what}{self.images.ending}")


class Segmenter:
    """Segments files with one model; several threads may share it.

    Args:
        predict: uint8 (N, C, H, W) -> uint8 label maps (N, H, W), and with uncertainty the class
            probabilities float32 (N, labels, H, W).
        metadata: of the package: dataset and recipe.
        out: folder that the places of the jobs lie in.
        spacing: (row, column) in mm that counts instead of the files' own.
        uncertainty: also write the entropy of each pixel, see `normalised_entropy`.
        overwrite: also segment files whose results are there.
        made_before: results older than this (seconds since the epoch) count as not there.
    """

    def __init__(
        self,
        predict: Predict,
        metadata: dict[str, Any],
        out: Path,
        *,
        spacing: Spacing | None = None,
        uncertainty: bool = False,
        overwrite: bool = False,
        made_before: float = 0.0,
    ):
        self.predict = predict
        self.dataset = metadata["dataset"]
        self.spec = DATASETS[self.dataset]
        self.channels = metadata["recipe"]["model"]["in_channels"]
        self.out = out
        self.spacing = spacing
        self.uncertainty = uncertainty
        self.overwrite = overwrite
        self.made_before = made_before
        self._lock = threading.Lock()  # one batch at a time uses all cores, or the GPU
        self._drawing = threading.Lock()  # matplotlib is for one thread at a time

    @classmethod
    def of(cls, package: Package, settings: dict[str, Any]) -> Segmenter:
        """Load a package; the settings are the further arguments."""
        load = package.load_with_probabilities if settings["uncertainty"] else package.load
        return cls(load(), package.metadata, **settings)

    def __call__(self, jobs: Sequence[Job]) -> Outcome:
        """Segment files; those of one patient are given together.

        A file that cannot be read, segmented or written is a problem of its own.
        """
        outcome = Outcome()
        opened = [found for job in jobs if (found := self._open(job, outcome)) is not None]
        self._segment([one for one in opened if one.fresh])
        masks = []
        for one in opened:
            try:
                with catch_write_errors(one.target):
                    self._finish(one, outcome)
            except InputError as error:
                outcome.problems.append(str(error))
            else:
                image = one.images.frames[one.numbers[0]]
                masks.append(Mask(one.job, one.labels[0], one.images.spacing, image))
        if self.spec.apical:
            outcome.patients = clinical_rows(masks, self.out)
            for row in outcome.patients:
                if odd := [flag for flag in PATIENT_FLAGS if row.get(flag)]:
                    told = f"its volumes and EF are not plausible ({', '.join(odd)})"
                    outcome.notes.append((row["patient"], told))
        return outcome

    def _open(self, job: Job, outcome: Outcome) -> Opened | None:
        """Read a file, and its label maps where they are there already."""
        try:
            images = read_images(job.file, spacing=self.spacing)
            self._note(job.file, images, outcome)
            numbers = self._numbers(job, len(images.frames))
            one = Opened(job, images, numbers, np.empty(0, np.uint8), True)
            wanted = [one.target, one.uncertainty] if self.uncertainty else [one.target]
            if not self.overwrite and all(self._is_made(path) for path in wanted):
                stored = self._made(one.target)
                one.labels, one.fresh = _fitting(stored, one, one.target), False
        except InputError as error:
            outcome.problems.append(str(error))
            return None
        return one

    def _note(self, file: Path, images: Images, outcome: Outcome) -> None:
        """Keep what was noticed in a file, also if it cannot be segmented in the end."""
        outcome.notes += [(str(file), note) for note in images.notes]
        if self.spec.apical and images.spacing is None:
            no_scale = f"{images.geometry.doubt}: nothing is measured in mm (see --spacing)"
            outcome.notes.append((str(file), no_scale))

    def _is_made(self, path: Path) -> bool:
        return path.exists() and path.stat().st_mtime >= self.made_before

    def _made(self, path: Path) -> np.ndarray:
        """The label maps that an earlier run left."""
        try:
            return read_labels(path, self.spec.labels).frames
        except InputError:
            raise InputError(
                f"{path}: is no label map that an earlier run can have left; remove it, or add "
                "--overwrite"
            ) from None

    def _numbers(self, job: Job, count: int) -> np.ndarray:
        try:
            return segmented_frames(count, self.channels)
        except InputError as error:
            raise InputError(f"{job.file}: {error}") from None

    def _segment(self, files: list[Opened]) -> None:
        """Frames of one size go through the network together, whatever file they are from."""
        by_shape: dict[tuple[int, ...], list[Opened]] = defaultdict(list)
        for one in files:
            by_shape[one.images.frames.shape[1:]].append(one)
        for (height, width), same in by_shape.items():
            stacks = np.concatenate(
                [input_stacks(one.images.frames, self.channels) for one in same]
            )
            step = max(min(FRAMES_AT_ONCE, PIXELS_AT_ONCE // (height * width)), 1)
            labels, entropies = [], []
            for start in range(0, len(stacks), step):
                with self._lock:
                    found = self.predict(self._batch(stacks[start : start + step]))
                if isinstance(found, tuple):
                    found, probabilities = found
                    entropies += [normalised_entropy(image) for image in probabilities]
                labels.append(found)
            rest = iter(entropies)
            ends = np.cumsum([len(one.numbers) for one in same])[:-1]
            for one, own in zip(same, np.split(np.concatenate(labels), ends), strict=True):
                one.labels = own
                one.entropies = list(islice(rest, len(own)))

    def _batch(self, stacks: np.ndarray) -> np.ndarray:
        return np.repeat(stacks, self.channels // stacks.shape[1], axis=1)

    def _finish(self, one: Opened, outcome: Outcome) -> None:
        """Write a file's results, unless they are there, and measure its label maps."""
        spacing, place, labels = one.images.spacing, one.job.place, one.labels
        measured = spacing if self.spec.apical else None
        curves = None
        if self.spec.apical and len(one.images.frames) > 1:
            curves, problems = _curves(one, measured or (1.0, 1.0))
            outcome.problems += problems
        if one.fresh:
            frames = one.images.frames
            save_overlay(frames, labels, one.numbers, self.dataset, spacing, place)
            if curves is not None and measured is not None:
                with self._drawing:
                    _save_curves(curves, place)
            if self.uncertainty:
                entropies = np.stack(one.entropies)
                write_atomically(lambda path: one.images.save(entropies, path), one.uncertainty)
            elif not self._is_made(one.uncertainty):  # of what is overwritten
                one.uncertainty.unlink(missing_ok=True)
            # last: where the label map is, everything is
            write_atomically(lambda path: one.images.save(labels, path), one.target)
        doubts = None
        if self.uncertainty:  # as stored: a PNG rounds, and a later run's table is to be the same
            doubts = _fitting(read_uncertainty(one.uncertainty), one, one.uncertainty)
        outcome.done += one.fresh
        outcome.skipped += not one.fresh
        if self.spec.apical or doubts is not None:
            rows = frame_rows(one.job, labels, one.numbers, measured, self.out, doubts)
            if self.spec.apical:
                add_flags(rows, labels, measured, one.images.frames[one.numbers])
                geometry = one.images.geometry
                rows = [row | {"scale": geometry.source or geometry.doubt} for row in rows]
            outcome.images += rows
        if curves is not None:
            name = {"sequence": str(place.relative_to(self.out))}
            summary = summarise_curves(curves)
            if measured is None:  # of the volumes only their ratio counts
                summary = {key: v for key, v in summary.items() if not key.endswith(VOLUMES)}
            # one frame spoils the volume at an end of the curve, and so EF
            told = [flag for flag in ("edge", "size") if flag in rows[0]]
            odd = {flag: any(row[flag] for row in rows) for flag in told}
            outcome.sequences.append(name | summary | odd)


def _fitting(stored: np.ndarray, one: Opened, path: Path) -> np.ndarray:
    """The part of maps (K, H, W) read from a path that belongs to the image's frames."""
    rows, columns = one.images.region
    maps = stored[:, rows, columns]
    expected = (len(one.numbers), *one.images.frames.shape[1:])
    if maps.shape != expected:
        raise InputError(
            f"{path}: is {stored.shape}, for its image it would be {expected}; remove it, "
            "or add --overwrite"
        )
    return maps


# --- sequences ----------------------------------------------------------------------------


def _curves(one: Opened, spacing: Spacing) -> tuple[pd.DataFrame, list[str]]:
    """A row per frame, compared with a reference beside the file; what is wrong with that."""
    reference, problems = _read_reference(one.job.file, one.images.frames.shape)
    curves = lv_curves(
        one.labels,
        spacing,
        reference=None if reference is None else reference[one.numbers],
        numbers=one.numbers + 1,
        frame_rate=one.images.frame_rate or frame_rate(one.job.file),
    )
    return curves, problems


def _save_curves(curves: pd.DataFrame, place: Path) -> None:
    """NAME_curves.csv and NAME_curves.png."""
    from heartseg.report.curves import curve_figure
    from heartseg.report.figures import save

    table, figure = (place.with_name(f"{place.name}_curves.{end}") for end in ("csv", "png"))
    write_text(table, csv_text(curves))
    write_atomically(lambda path: save(curve_figure(curves, place.name), path), figure)


def _read_reference(file: Path, shape: tuple[int, ...]) -> tuple[np.ndarray | None, list[str]]:
    """Label maps (T, H, W) of NAME_gt beside a file, None where there is none; what is wrong."""
    path = file.with_name(f"{stem_of(file)}_gt{suffix_of(file)}")
    if not path.exists():
        return None, []
    try:
        reference = read_labels(path, DATASETS["camus"].labels).frames
    except InputError as error:
        return None, [str(error)]
    if reference.shape != shape:
        return None, [f"{path}: is {reference.shape}, its image {shape}; export it on that grid"]
    return reference, []
