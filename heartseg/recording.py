"""Segment and measure whole M-mode recordings: PNG strips of any length, time to the right.

Leaves, for each strip, NAME_beats.csv, NAME_traces.csv, NAME_mask.png and NAME_figure.png, and for
all of them recordings.csv. Spacing comes from the options, else from a windows.csv beside the
strip (name, mm_per_row, s_per_column), else from datasets.mmode in params.yaml.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heartseg.config import load_params
from heartseg.errors import InputError, run_command

if TYPE_CHECKING:
    from heartseg.data.recording import Recording
    from heartseg.metrics.mmode import Species
    from heartseg.tracking.registry import Pulled

Predict = Callable[[np.ndarray], np.ndarray]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="heartseg recording", description=__doc__)
    parser.add_argument("model", help="for example models:/heartseg-mmode@champion")
    parser.add_argument("strips", nargs="+", type=Path, metavar="STRIP.png")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--mm-per-row", type=_positive, metavar="MM")
    parser.add_argument("--s-per-column", type=_positive, metavar="S")
    parser.add_argument("--species", choices=("mouse", "human"), help="recording.species otherwise")
    parser.add_argument(
        "--heart-rates",
        nargs=2,
        type=_positive,
        metavar=("MIN", "MAX"),
        help="plausible ones per minute; the species' own otherwise",
    )
    parser.add_argument(
        "--window",
        type=_positive,
        metavar="RATIO",
        help="columns of a window over its rows; recording.window otherwise",
    )
    parser.add_argument(
        "--quality",
        type=Path,
        metavar="SPANS.csv",
        help="start_s, end_s, quality (good or bad)[, name]; bad spans are excluded",
    )
    options = parser.parse_args(argv)
    params = load_params()

    from heartseg.data.recording import bad_columns, read_recording, read_spans
    from heartseg.metrics.mmode import SPECIES
    from heartseg.models.strips import predict_strip
    from heartseg.report.recording_tables import report_text

    species = SPECIES[options.species or params.recording.species]
    rates = tuple(options.heart_rates or species.rates)
    if not rates[0] < rates[1]:
        raise InputError(f"--heart-rates {rates[0]:g} {rates[1]:g}: give the slower one first")
    names = Counter(path.stem for path in options.strips)
    if twice := sorted(name for name, times in names.items() if times > 1):
        raise InputError(f"{twice[0]} is the name of several strips; measure them one by one")
    spans = read_spans(options.quality, list(names)) if options.quality else []
    predict = _predictor(options.model)
    rows, problems = [], []
    for path in options.strips:
        try:
            strip = read_recording(
                path, options.mm_per_row, options.s_per_column, params.datasets.mmode
            )
        except InputError as error:
            problems.append(str(error))
            continue
        width = max(round(len(strip.image) * (options.window or params.recording.window)), 1)
        mask = predict_strip(predict, strip.image, width, params.recording.overlap)
        bad = bad_columns(spans, strip.name, mask.shape[1], strip.spacing[1])
        rows.append(measure_recording(strip, mask, bad, rates, species, options.out))
        print(report_text(rows[-1], species))
    if rows:
        _write_summary(rows, species, options.out)
    if problems:
        listing = "\n".join(f"  - {problem}" for problem in problems)
        raise InputError(f"{len(problems)} recording(s) could not be measured:\n{listing}")


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def _predictor(model: str) -> Predict:
    from heartseg.tracking.mlflow import tracking_uri
    from heartseg.tracking.registry import pull

    pulled: Pulled = pull(tracking_uri(Path.cwd()), model)
    if pulled.metadata["dataset"] != "mmode":
        raise InputError(
            f"{model} was trained on {pulled.metadata['dataset']}; take one for M-mode, "
            "for example models:/heartseg-mmode@champion"
        )
    channels = pulled.metadata["recipe"]["model"]["in_channels"]
    return lambda windows: pulled.predict(np.repeat(windows, channels, axis=1))


def measure_recording(
    strip: Recording,
    mask: np.ndarray,
    bad: np.ndarray,
    rates: tuple[float, float],
    species: Species,
    out: Path,
) -> dict[str, Any]:
    """Measure a strip's mask and write its files; returns its row of recordings.csv."""
    from PIL import Image

    from heartseg.metrics.mmode import follow, summarise_beats
    from heartseg.report.figures import save
    from heartseg.report.recording import recording_figure
    from heartseg.report.recording_tables import beat_table, headline, summary_row, trace_table

    walls, pieces = follow(mask, strip.spacing, *rates, excluded=bad)
    shortest_beat = 60.0 / rates[1] / strip.spacing[1]
    values = summarise_beats(walls, pieces, shortest_beat, species)
    row = {
        "name": strip.name,
        "seconds": mask.shape[1] * strip.spacing[1],
        **summary_row(values, walls, pieces, species),
        "mm_per_row": strip.spacing[0],
        "mm_per_row_from": strip.spacing_from[0],
        "s_per_column": strip.spacing[1],
        "s_per_column_from": strip.spacing_from[1],
        **{f"reference_{column}": value for column, value in strip.reference.items()},
    }
    figure = recording_figure(strip.image, strip.spacing, walls, pieces, headline(row))
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".") as folder:
        temporary = Path(folder)
        beat_table(pieces, species).to_csv(temporary / f"{strip.name}_beats.csv", index=False)
        traces = trace_table(walls, strip.spacing[1])
        traces.to_csv(temporary / f"{strip.name}_traces.csv", index=False, float_format="%.6g")
        Image.fromarray(mask.astype(np.uint8) * 255).save(temporary / f"{strip.name}_mask.png")
        save(figure, temporary / f"{strip.name}_figure.png")
        for file in temporary.iterdir():
            os.replace(file, out / file.name)
    for note in strip.notes:
        print(f"{strip.name}: {note}")
    return row


def _write_summary(rows: list[dict[str, Any]], species: Species, out: Path) -> None:
    import pandas as pd

    from heartseg.report.recording_tables import error_lines

    table = pd.DataFrame(rows)
    temporary = out / f".recordings.{os.getpid()}.tmp"
    table.to_csv(temporary, index=False)
    os.replace(temporary, out / "recordings.csv")
    print(f"wrote {out / 'recordings.csv'}: {len(table)} recording(s)")
    for line in error_lines(table, species):
        print(line)


if __name__ == "__main__":
    run_command(main)
