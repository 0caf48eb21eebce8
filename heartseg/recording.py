"""Segment and measure whole M-mode recordings: DICOM files and pictures of any length.

Leaves, for each strip, NAME_beats.csv, NAME_traces.csv, NAME_mask.png and NAME_figure.png, and for
all of them recordings.csv. Reads recordings.csv (spacing, known values) and quality.csv (bad spans
are excluded) beside the recordings, as `heartseg windows` does. Strips without labels of quality
can have their bad spans found by a model.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heartseg.cli import positive, run_command
from heartseg.config.params import Params, load_params
from heartseg.errors import InputError, printing_notes, writing_to
from heartseg.paths import write_whole
from heartseg.text import csv_text

if TYPE_CHECKING:
    from heartseg.data.species import Species
    from heartseg.data.strips.folder import Folder
    from heartseg.data.strips.quality import QualityLabels
    from heartseg.data.strips.recordings import Strip
    from heartseg.tracking.pulled import Pulled

Predict = Callable[[np.ndarray], np.ndarray]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="heartseg recording", description=__doc__)
    parser.add_argument("model", help="for example models:/heartseg-mmode@champion")
    parser.add_argument("recordings", nargs="+", type=Path, metavar="FILE_OR_FOLDER")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--mm-per-row", type=positive(float), metavar="MM", help="of all recordings"
    )
    parser.add_argument(
        "--s-per-column", type=positive(float), metavar="S", help="of all recordings"
    )
    parser.add_argument(
        "--species", choices=("mouse", "human"), help="datasets.mmode.species otherwise"
    )
    parser.add_argument(
        "--heart-rates",
        nargs=2,
        type=positive(float),
        metavar=("MIN", "MAX"),
        help="plausible ones per minute; the species' own otherwise",
    )
    parser.add_argument(
        "--quality",
        metavar="CSV_OR_MODEL",
        help="instead of quality.csv; or a model that finds the bad spans of strips without "
        "labels, for example models:/heartseg-mmode-quality@champion",
    )
    options = parser.parse_args(argv)
    params = load_params()

    from heartseg.data.species import SPECIES

    species = SPECIES[options.species or params.datasets.mmode.species]
    rates: tuple[float, float] = tuple(options.heart_rates or species.rates)
    if not rates[0] < rates[1]:
        raise InputError(f"--heart-rates {rates[0]:g} {rates[1]:g}: give the slower one first")
    with printing_notes() as notes:
        _measure_all(options, params, species, rates, notes)


def _measure_all(
    options: argparse.Namespace,
    params: Params,
    species: Species,
    rates: tuple[float, float],
    notes: list[str],
) -> None:
    from heartseg.data.strips.folder import find_recordings, unmatched_labels
    from heartseg.data.strips.quality import QualityLabels
    from heartseg.data.strips.recordings import Defaults, read_known, read_recording
    from heartseg.models.sliding_window import bad_columns, predict_strip
    from heartseg.report.recording_tables import doubts, report_text

    found = find_recordings(options.recordings, notes)
    folders = {one.folder.path: one.folder for one in found}
    for place in folders:
        if options.out.exists() and os.path.samefile(place, options.out):
            raise InputError(
                f"{options.out}: holds the recordings, whose tables and traces would be "
                "overwritten. Name another folder by --out."
            )
    predict = pull_predictor(options.model, "mmode")
    by_model = is_model(options.quality)
    classify = pull_predictor(options.quality, "mmode-quality") if by_model else None
    file = None if by_model or not options.quality else Path(options.quality)
    general = params.datasets.mmode.mm_per_row, params.datasets.mmode.s_per_column
    asked = options.mm_per_row, options.s_per_column
    defaults = Defaults(species, general, asked)
    rows, problems = [], []
    judged: dict[Path, QualityLabels] = {}
    for recording in found:
        quality = file or recording.folder.quality
        try:
            strips = read_recording(recording, defaults, notes)
            known = read_known(recording)
            if quality is not None and quality not in judged:
                judged[quality] = _read_labels(quality)
            labels = judged[quality] if quality is not None else QualityLabels()
            for strip in strips:
                windows = size_of(strip, params, rates)
                mask = predict_strip(predict, strip.image, *windows)
                width = strip.image.shape[1]
                bad, by = np.zeros(width, bool), ""
                labelled = labels.columns(strip.name, width, strip.spacing[1])
                if labelled is not None and quality is not None:
                    bad, by = labelled[1], quality.name
                    if classify is not None:
                        notes.append(f"{strip.name}: the labels of {quality} count, not the model")
                elif classify is not None:
                    bad, by = bad_columns(classify, strip.image, *windows), options.quality
                row = measure_recording(strip, mask, bad, rates, species, options.out)
                row["quality_by"] = by
                rows.append(row | {f"reference_{column}": value for column, value in known.items()})
                print(report_text(row))
                notes += doubts(row, strip.scale, species, rates)
        except InputError as error:
            problems.append(str(error))
    if rows:
        _write_summary(rows, species, options.out)
    for folder in folders.values():
        notes += folder.unmatched_files()
        try:
            problems += folder.stray_rows()
        except InputError as error:
            problems.append(str(error))
    for quality, labels in judged.items():
        mine = [one for one in folders.values() if quality in (file, one.quality)]
        notes += unmatched_labels(labels, quality, mine)
        notes += _labels_of_windows(labels, quality, mine)
    if problems:
        lines = list(dict.fromkeys(problems))  # one table's fault can hit several recordings
        listing = "\n".join(f"  - {line}" for line in lines)
        raise InputError(f"{len(lines)} problem(s), {len(rows)} strip(s) measured:\n{listing}")


def _read_labels(quality: Path) -> QualityLabels:
    """The labels in a file, which must exist."""
    from heartseg.data.strips.quality import read_quality

    if not quality.exists():
        raise InputError(f"{quality}: does not exist. Give recording, start_s, end_s, quality.")
    return read_quality(quality)


def _labels_of_windows(
    labels: QualityLabels, quality: Path, folders: Sequence[Folder]
) -> list[str]:
    """A note if windows of strips that are here are labelled, which a whole recording ignores."""
    strips = {name for folder in folders for names in folder.read.values() for name in names}
    windows = [window for window in labels.windows if window.rpartition("_w")[0] in strips]
    if not windows:
        return []
    return [
        f"{quality}: {len(windows)} label(s) of windows do not count for whole recordings; give "
        "spans (recording, start_s, end_s, quality)"
    ]


def size_of(strip: Strip, params: Params, rates: tuple[float, float]) -> tuple[int, float]:
    """Columns of a window, as long as those that were trained on, and the windows' overlap."""
    from heartseg.data.strips.cut import window_size

    width, _ = window_size(strip, params.windows, rates)
    return width, params.recording.overlap


def is_model(quality: str | None) -> bool:
    """Whether --quality names a model rather than a file."""
    return quality is not None and quality.startswith(("models:/", "runs:/"))


def pull_predictor(model: str, dataset: str) -> Predict:
    """A registered model, from gray windows uint8 (N, 1, H, W) to label maps uint8 (N, H, W).

    Raises:
        InputError: there is no such model, or it was trained on another dataset.
    """
    from heartseg.tracking.client import tracking_uri
    from heartseg.tracking.pulled import pull

    pulled: Pulled = pull(tracking_uri(Path.cwd()), model)
    if pulled.metadata["dataset"] != dataset:
        raise InputError(
            f"{model} was trained on {pulled.metadata['dataset']}; take one for M-mode, "
            f"for example models:/heartseg-{dataset}@champion"
        )
    channels = pulled.metadata["recipe"]["model"]["in_channels"]
    return lambda windows: pulled.predict(np.repeat(windows, channels, axis=1))


def measure_recording(
    strip: Strip,
    mask: np.ndarray,
    bad: np.ndarray,
    rates: tuple[float, float],
    species: Species,
    out: Path,
) -> dict[str, Any]:
    """Measure a strip's mask and write its files; returns its row of recordings.csv."""
    from PIL import Image

    from heartseg.data.strips.quality import spans_of
    from heartseg.metrics.mmode import summarise_beats, trace_beats
    from heartseg.report.figures import save
    from heartseg.report.recording import recording_figure
    from heartseg.report.recording_tables import beat_table, headline, summary_row, trace_table

    walls, pieces = trace_beats(mask, strip.spacing, *rates, excluded=bad)
    shortest_beat = 60.0 / rates[1] / strip.spacing[1]
    values = summarise_beats(walls, pieces, shortest_beat, species)
    row = {
        "name": strip.name,
        "animal": strip.animal,
        "seconds": mask.shape[1] * strip.spacing[1],
        **summary_row(values, walls, pieces, species),
        "bad_quality_s": bad.sum() * strip.spacing[1],
        "bad_spans_s": "; ".join(f"{a:.3f}-{b:.3f}" for a, b in spans_of(bad, strip.spacing[1])),
        "mm_per_row": strip.spacing[0],
        "s_per_column": strip.spacing[1],
    }
    figure = recording_figure(strip.image, strip.spacing, walls, pieces, headline(row))
    with writing_to(out):
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".") as folder:
            temporary = Path(folder)
            beats = csv_text(beat_table(pieces, species))
            (temporary / f"{strip.name}_beats.csv").write_text(beats, encoding="utf-8")
            traces = csv_text(trace_table(walls, strip.spacing[1]), float_format="%.6g")
            (temporary / f"{strip.name}_traces.csv").write_text(traces, encoding="utf-8")
            Image.fromarray(mask.astype(np.uint8) * 255).save(temporary / f"{strip.name}_mask.png")
            save(figure, temporary / f"{strip.name}_figure.png")
            for file in temporary.iterdir():
                os.replace(file, out / file.name)
    return row


def _write_summary(rows: list[dict[str, Any]], species: Species, out: Path) -> None:
    import pandas as pd

    from heartseg.report.recording_tables import error_lines

    table = pd.DataFrame(rows)
    with writing_to(out / "recordings.csv"):
        write_whole(out / "recordings.csv", csv_text(table))
    print(f"wrote {out / 'recordings.csv'}: {len(table)} recording(s)")
    for line in error_lines(table, species):
        print(line)


if __name__ == "__main__":
    run_command(main)
