"""Segmentation of files: read images, segment them in batches, write and measure the results."""

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
from heartseg.data.images import Images, read_images, read_labels, read_uncertainty
from heartseg.datasets import DATASETS
from heartseg.errors import InputError, catch_write_errors
from heartseg.metrics import Spacing
from heartseg.metrics.plausibility import PATIENT_FLAGS
from heartseg.metrics.sequence import lv_curves, summarise_curves
from heartseg.metrics.uncertainty import normalised_entropy
from heartseg.models.inputs import input_stacks, segmented_frames
from heartseg.paths import write_atomically
from heartseg.prediction.files import Job
from heartseg.prediction.sequences import read_reference, save_curves
from heartseg.prediction.tables import (
    UNIT_SPACING,
    Mask,
    add_flags,
    clinical_rows,
    frame_rows,
)
from heartseg.report.overlay import save_overlay

if TYPE_CHECKING:
    from heartseg.models.package import Package

Predict = Callable[[np.ndarray], np.ndarray | tuple[np.ndarray, np.ndarray]]

VOLUMES = ("_ml", "_ml_reference")
BATCH_FRAMES = 8  # limits the memory for long sequences
BATCH_PIXELS = 2**22  # limits the memory for large images


@dataclass
class Outcome:
    """The results of some files.

    Attributes:
        done: Number of segmented files.
        skipped: Number of files that were segmented earlier.
        problems: A line for each file that could not be segmented.
        notes: (path, note). A note is a clause about the file.
        images: Rows of images.csv.
        patients: Rows of clinical.csv.
        sequences: Rows of sequences.csv.
    """

    done: int = 0
    skipped: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)
    patients: list[dict[str, Any]] = field(default_factory=list)
    sequences: list[dict[str, Any]] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        """Add the counts and rows of another outcome."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class OpenFile:
    """A file that is being segmented.

    Attributes:
        job: Job of the file.
        images: Content of the file.
        numbers: Indices of the frames to segment, (K,), from 0.
        labels: Label maps, uint8 (K, H, W); empty before the segmentation.
        is_new: Whether to segment the file. False if `labels` are from an earlier run.
        entropies: Entropy of each new label map, (H, W), from 0 to 1, if requested.
    """

    job: Job
    images: Images
    numbers: np.ndarray
    labels: np.ndarray
    is_new: bool
    entropies: list[np.ndarray] = field(default_factory=list)

    @property
    def labels_path(self) -> Path:
        """Path of the label maps."""
        return self._path("seg")

    @property
    def uncertainty_path(self) -> Path:
        """Path of the uncertainty maps."""
        return self._path("uncertainty")

    def _path(self, kind: str) -> Path:
        output = self.job.output
        return output.with_name(f"{output.name}_{kind}{self.images.suffix}")


class Segmenter:
    """Segments files with one model. Several threads may share it.

    Args:
        predict: Function that maps uint8 (N, C, H, W) to label maps, uint8 (N, H, W). If
            `uncertainty` is set, it also returns the class probabilities, float32
            (N, labels, H, W).
        metadata: Metadata of the package, with dataset and recipe.
        out: Folder that contains the outputs of all jobs.
        spacing: (row, column) in mm, which replaces the spacing of the files.
        uncertainty: Whether to write the entropy of each pixel, see `normalised_entropy`.
        overwrite: Whether to segment files that have been segmented before.
        made_before: Results older than this are ignored, in seconds since the epoch.
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
        self._predict_lock = threading.Lock()  # one batch uses all cores or the GPU
        self._plot_lock = threading.Lock()  # matplotlib is not thread-safe

    @classmethod
    def of(cls, package: Package, settings: dict[str, Any]) -> Segmenter:
        """Load the network of a package.

        Args:
            package: Package of the model.
            settings: Further arguments of `Segmenter`, among them `uncertainty`.
        """
        load = package.load_with_probabilities if settings["uncertainty"] else package.load
        return cls(load(), package.metadata, **settings)

    def __call__(self, jobs: Sequence[Job]) -> Outcome:
        """Segment files. All files of a patient must be passed together.

        A file that cannot be read, segmented or written is added to the problems.
        """
        outcome = Outcome()
        files = [file for job in jobs if (file := self._open(job, outcome)) is not None]
        self._segment([file for file in files if file.is_new])
        masks = []
        for file in files:
            try:
                with catch_write_errors(file.labels_path):
                    curves = self._curves(file, outcome)
                    if file.is_new:
                        self._write(file, curves)
                    self._measure(file, curves, outcome)
            except InputError as error:
                outcome.problems.append(str(error))
            else:
                image = file.images.frames[file.numbers[0]]
                masks.append(Mask(file.job, file.labels[0], file.images.spacing, image))
        if self.spec.apical:
            outcome.patients = clinical_rows(masks, self.out)
            for row in outcome.patients:
                if flags := [flag for flag in PATIENT_FLAGS if row.get(flag)]:
                    note = f"its volumes and EF are not plausible ({', '.join(flags)})"
                    outcome.notes.append((row["patient"], note))
        return outcome

    def _open(self, job: Job, outcome: Outcome) -> OpenFile | None:
        """Read a file, and its label maps if they are from an earlier run."""
        try:
            images = read_images(job.file, spacing=self.spacing)
            self._add_notes(job.file, images, outcome)
            numbers = self._frame_numbers(job, len(images.frames))
            file = OpenFile(job, images, numbers, np.empty(0, np.uint8), True)
            required = [file.labels_path]
            if self.uncertainty:
                required.append(file.uncertainty_path)
            if not self.overwrite and all(self._is_current(path) for path in required):
                stored = self._read_labels(file.labels_path)
                file.labels, file.is_new = _crop(stored, file, file.labels_path), False
        except InputError as error:
            outcome.problems.append(str(error))
            return None
        return file

    def _add_notes(self, file: Path, images: Images, outcome: Outcome) -> None:
        outcome.notes += [(str(file), note) for note in images.notes]
        if self.spec.apical and images.spacing is None:
            note = f"{images.geometry.scale_problem}: nothing is measured in mm (see --spacing)"
            outcome.notes.append((str(file), note))

    def _is_current(self, path: Path) -> bool:
        return path.exists() and path.stat().st_mtime >= self.made_before

    def _read_labels(self, path: Path) -> np.ndarray:
        """Read the label maps of an earlier run."""
        try:
            return read_labels(path, self.spec.labels).frames
        except InputError:
            raise InputError(
                f"{path}: is not a label map of an earlier run; delete it, or add --overwrite"
            ) from None

    def _frame_numbers(self, job: Job, count: int) -> np.ndarray:
        try:
            return segmented_frames(count, self.channels)
        except InputError as error:
            raise InputError(f"{job.file}: {error}") from None

    def _segment(self, files: list[OpenFile]) -> None:
        """Segment frames of the same size together, whichever file they belong to."""
        by_shape: dict[tuple[int, ...], list[OpenFile]] = defaultdict(list)
        for file in files:
            by_shape[file.images.frames.shape[1:]].append(file)
        for (height, width), same in by_shape.items():
            stacks = np.concatenate(
                [input_stacks(file.images.frames, self.channels) for file in same]
            )
            step = max(min(BATCH_FRAMES, BATCH_PIXELS // (height * width)), 1)
            labels, entropies = [], []
            for start in range(0, len(stacks), step):
                batch = stacks[start : start + step]
                batch = np.repeat(batch, self.channels // batch.shape[1], axis=1)
                with self._predict_lock:
                    found = self.predict(batch)
                if isinstance(found, tuple):
                    found, probabilities = found
                    entropies += [normalised_entropy(image) for image in probabilities]
                labels.append(found)
            rest = iter(entropies)
            ends = np.cumsum([len(file.numbers) for file in same])[:-1]
            for file, own in zip(same, np.split(np.concatenate(labels), ends), strict=True):
                file.labels = own
                file.entropies = list(islice(rest, len(own)))

    def _scale(self, file: OpenFile) -> Spacing | None:
        return file.images.spacing if self.spec.apical else None

    def _curves(self, file: OpenFile, outcome: Outcome) -> pd.DataFrame | None:
        """Return the curves of an apical sequence, or None for other files.

        They are compared with the reference label maps beside the file, if there are any.
        """
        if not self.spec.apical or len(file.images.frames) == 1:
            return None
        reference, problems = read_reference(file.job.file, file.images.frames.shape)
        outcome.problems += problems
        return lv_curves(
            file.labels,
            self._scale(file) or UNIT_SPACING,
            reference=None if reference is None else reference[file.numbers],
            numbers=file.numbers + 1,
            frame_rate=file.images.frame_rate or frame_rate(file.job.file),
        )

    def _write(self, file: OpenFile, curves: pd.DataFrame | None) -> None:
        """Write the results of a new file."""
        images, output = file.images, file.job.output
        save_overlay(images.frames, file.labels, file.numbers, self.dataset, images.spacing, output)
        if curves is not None and self._scale(file) is not None:
            with self._plot_lock:
                save_curves(curves, output)
        if self.uncertainty:
            entropies = np.stack(file.entropies)
            write_atomically(lambda path: images.save(entropies, path), file.uncertainty_path)
        elif not self._is_current(file.uncertainty_path):  # it belongs to an overwritten label map
            file.uncertainty_path.unlink(missing_ok=True)
        # The label maps come last: if they exist, all results exist.
        write_atomically(lambda path: images.save(file.labels, path), file.labels_path)

    def _measure(self, file: OpenFile, curves: pd.DataFrame | None, outcome: Outcome) -> None:
        """Add a file to the tables."""
        scale, entropies = self._scale(file), None
        if self.uncertainty:  # from the file, because PNG rounds: a later run gives the same table
            stored = read_uncertainty(file.uncertainty_path)
            entropies = _crop(stored, file, file.uncertainty_path)
        outcome.done += file.is_new
        outcome.skipped += not file.is_new
        if self.spec.apical or entropies is not None:
            rows = frame_rows(file.job, file.labels, file.numbers, scale, self.out, entropies)
            if self.spec.apical:
                add_flags(rows, file.labels, scale, file.images.frames[file.numbers])
                geometry = file.images.geometry
                rows = [row | {"scale": geometry.source or geometry.scale_problem} for row in rows]
            outcome.images += rows
        if curves is not None:
            name = {"sequence": str(file.job.output.relative_to(self.out))}
            summary = summarise_curves(curves)
            if scale is None:  # without a scale, only ratios of volumes are meaningful
                summary = {key: v for key, v in summary.items() if not key.endswith(VOLUMES)}
            # A single flagged frame may be the end of the curve, and thus spoil volume and EF.
            flags = {
                flag: any(row[flag] for row in rows) for flag in ("edge", "size") if flag in rows[0]
            }
            outcome.sequences.append(name | summary | flags)


def _crop(stored: np.ndarray, file: OpenFile, path: Path) -> np.ndarray:
    """Return the part of stored maps that belongs to the segmented frames.

    Args:
        stored: Maps (K, H, W).
        file: File to which the maps belong.
        path: Path of the maps, for messages.

    Raises:
        InputError: If the shape of the part is not that of the frames.
    """
    rows, columns = file.images.region
    maps = stored[:, rows, columns]
    expected = (len(file.numbers), *file.images.frames.shape[1:])
    if maps.shape != expected:
        raise InputError(
            f"{path}: has shape {stored.shape}, but {expected} is expected for its image; delete "
            "it, or add --overwrite"
        )
    return maps
