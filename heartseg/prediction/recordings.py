"""Measurement of whole M-mode recordings, and the files with its results."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from heartseg.config.params import Params
from heartseg.data.species import Species
from heartseg.data.strips.folder import (
    Recording,
    RecordingFolder,
    find_recordings,
    unmatched_labels,
)
from heartseg.data.strips.quality import QualityLabels, find_spans, read_quality
from heartseg.data.strips.recordings import Defaults, Strip, read_recording, read_references
from heartseg.errors import InputError, catch_write_errors
from heartseg.metrics.mmode import summarise_beats, trace_beats
from heartseg.models.sliding_window import predict_strip
from heartseg.paths import write_text
from heartseg.prediction.strip_models import (
    Predict,
    find_bad_columns,
    pull_predictor,
    window_layout,
)
from heartseg.report import recording_tables
from heartseg.report.figures import save
from heartseg.report.recording import recording_figure
from heartseg.text import csv_text


@dataclass(frozen=True)
class Settings:
    """Settings for all recordings.

    Attributes:
        params: Content of params.yaml.
        species: Species of the hearts.
        rates: Plausible heart rates per minute, (slowest, fastest).
        spacing: (mm per row, s per column) that override all other sources; None if not given.
        quality: File with labels to use instead of quality.csv, or URI of a model of quality.
    """

    params: Params
    species: Species
    rates: tuple[float, float]
    spacing: tuple[float | None, float | None] = (None, None)
    quality: str | None = None

    @property
    def quality_model(self) -> str | None:
        """URI of the model of quality."""
        given = self.quality or ""
        return given if given.startswith(("models:/", "runs:/")) else None

    @property
    def quality_file(self) -> Path | None:
        """File to use instead of quality.csv."""
        return Path(self.quality) if self.quality and not self.quality_model else None

    @property
    def defaults(self) -> Defaults:
        """Defaults of recordings for which recordings.csv states no spacing."""
        mmode = self.params.datasets.mmode
        return Defaults(self.species, (mmode.mm_per_row, mmode.s_per_column), self.spacing)


def measure_recordings(
    model: str, inputs: Sequence[Path], out: Path, settings: Settings, notes: list[str]
) -> None:
    """Segment and measure recordings, and write the results.

    Args:
        model: URI of a registered model for M-mode.
        inputs: Files and folders with recordings.
        out: Folder for the results.
        settings: Settings for all recordings.
        notes: List to which notes are added, even if an error is raised later.

    Raises:
        InputError: A recording could not be read; the others are measured. Or `out` contains the
            recordings, or a model is unsuitable.
    """
    found = find_recordings(inputs, notes)
    folders = {one.folder.path: one.folder for one in found}
    for place in folders:
        if out.exists() and os.path.samefile(place, out):
            raise InputError(
                f"{out}: contains the recordings, whose tables and traces would be overwritten. "
                "Name another folder with --out."
            )
    measuring = _Measuring(
        out,
        settings,
        pull_predictor(model, "mmode"),
        pull_predictor(settings.quality_model, "mmode-quality") if settings.quality_model else None,
        notes,
    )
    rows, problems = [], []
    for recording in found:
        try:
            for row in measuring.measure(recording):
                rows.append(row)
                print(recording_tables.report_text(row))
        except InputError as error:
            problems.append(str(error))
    if rows:
        write_summary(rows, settings.species, out)
    for folder in folders.values():
        notes += folder.unmatched_files()
        try:
            problems += folder.unmatched_row_problems()
        except InputError as error:
            problems.append(str(error))
    notes += measuring.notes_on_labels(folders.values())
    if problems:
        lines = list(dict.fromkeys(problems))  # several recordings can share a faulty table
        listing = "\n".join(f"  - {line}" for line in lines)
        raise InputError(f"{len(lines)} problem(s), {len(rows)} strip(s) measured:\n{listing}")


@dataclass(frozen=True)
class _Measuring:
    """Models, settings and quality labels while recordings are measured.

    Attributes:
        out: Folder for the results.
        settings: Settings for all recordings.
        predict: Model that segments windows.
        classify: Model that finds windows of bad quality, if one is used.
        notes: List to which notes are added.
        labels: Labels that were read, by file.
    """

    out: Path
    settings: Settings
    predict: Predict
    classify: Predict | None
    notes: list[str]
    labels: dict[Path, QualityLabels] = field(default_factory=dict)

    def measure(self, recording: Recording) -> Iterator[dict[str, Any]]:
        """Measure the strips of a recording and write their files.

        Yields:
            The row of each strip in recordings.csv.
        """
        params, rates, species = self.settings.params, self.settings.rates, self.settings.species
        strips = read_recording(recording, self.settings.defaults, self.notes)
        references = read_references(recording)
        file = self.settings.quality_file or recording.folder.quality
        if file is not None and file not in self.labels:
            self.labels[file] = _read_labels(file)
        for strip in strips:
            layout = window_layout(strip, params, rates)
            mask = predict_strip(self.predict, strip.image, *layout)
            bad, source = self._bad_columns(strip, file)
            row = measure_recording(strip, mask, bad, rates, species, self.out)
            row["quality_by"] = source
            row |= {f"reference_{column}": value for column, value in references.items()}
            self.notes.extend(recording_tables.scale_warnings(row, strip.scale, species, rates))
            yield row

    def _bad_columns(self, strip: Strip, file: Path | None) -> tuple[np.ndarray, str]:
        """Return the columns of bad quality, bool (W,), and their source: a file or a model."""
        width = strip.image.shape[1]
        if file is not None:
            labelled = self.labels[file].columns(strip.name, width, strip.spacing[1])
            if labelled is not None:
                if self.classify is not None:
                    self.notes.append(
                        f"{strip.name}: the labels of {file} are used instead of the model"
                    )
                return labelled[1], file.name
        if self.classify is None:
            return np.zeros(width, bool), ""
        bad = find_bad_columns(self.classify, strip, self.settings.params, self.settings.rates)
        return bad, str(self.settings.quality_model)

    def notes_on_labels(self, folders: Iterable[RecordingFolder]) -> list[str]:
        """Return notes on labels that were not used, once all recordings are read."""
        notes = []
        for file, labels in self.labels.items():
            own = [one for one in folders if file in (self.settings.quality_file, one.quality)]
            notes += unmatched_labels(labels, file, own)
            strips = {
                name for folder in own for names in folder.read_strips.values() for name in names
            }
            windows = [name for name in labels.windows if name.rpartition("_w")[0] in strips]
            if windows:
                notes.append(
                    f"{file}: {len(windows)} label(s) of windows are not used for whole "
                    "recordings; give spans (recording, start_s, end_s, quality)"
                )
        return notes


def _read_labels(file: Path) -> QualityLabels:
    if not file.exists():
        raise InputError(
            f"{file}: does not exist. Name a table with the columns recording, start_s, end_s and "
            "quality."
        )
    return read_quality(file)


def measure_recording(
    strip: Strip,
    mask: np.ndarray,
    bad: np.ndarray,
    rates: tuple[float, float],
    species: Species,
    out: Path,
) -> dict[str, Any]:
    """Measure the mask of a strip and write its files.

    Args:
        strip: The strip.
        mask: Mask of the LV, bool (H, W).
        bad: Columns of bad quality, bool (W,), which are excluded.
        rates: Plausible heart rates per minute, (slowest, fastest).
        species: Species of the heart.
        out: Folder for the files.

    Returns:
        The strip's row of recordings.csv.
    """
    walls, pieces = trace_beats(mask, strip.spacing, *rates, excluded=bad)
    shortest_beat = 60.0 / rates[1] / strip.spacing[1]
    values = summarise_beats(walls, pieces, shortest_beat, species)
    row = {
        "name": strip.name,
        "animal": strip.animal,
        "seconds": mask.shape[1] * strip.spacing[1],
        **recording_tables.summary_row(values, walls, pieces, species),
        "bad_quality_s": bad.sum() * strip.spacing[1],
        "bad_spans_s": "; ".join(f"{a:.3f}-{b:.3f}" for a, b in find_spans(bad, strip.spacing[1])),
        "mm_per_row": strip.spacing[0],
        "s_per_column": strip.spacing[1],
    }
    title = recording_tables.headline_text(row)
    figure = recording_figure(strip.image, strip.spacing, walls, pieces, title)
    beats = csv_text(recording_tables.beat_table(pieces, species))
    table = recording_tables.trace_table(walls, strip.spacing[1])
    traces = csv_text(table, float_format="%.6g")
    with catch_write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".") as folder:
            temporary = Path(folder)
            (temporary / f"{strip.name}_beats.csv").write_text(beats, encoding="utf-8")
            (temporary / f"{strip.name}_traces.csv").write_text(traces, encoding="utf-8")
            Image.fromarray(mask.astype(np.uint8) * 255).save(temporary / f"{strip.name}_mask.png")
            save(figure, temporary / f"{strip.name}_figure.png")
            for file in temporary.iterdir():
                os.replace(file, out / file.name)
    return row


def write_summary(rows: list[dict[str, Any]], species: Species, out: Path) -> None:
    """Write recordings.csv, and print how the values differ from known ones.

    Args:
        rows: Rows of `measure_recording`.
        species: Species of the hearts.
        out: Folder for the file.
    """
    table = pd.DataFrame(rows)
    with catch_write_errors(out / "recordings.csv"):
        write_text(out / "recordings.csv", csv_text(table))
    print(f"wrote {out / 'recordings.csv'}: {len(table)} recording(s)")
    for line in recording_tables.error_lines(table, species):
        print(line)
