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
    import pandas as pd

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
    parser.add_argument("--heart-rates", nargs=2, type=_positive, metavar=("MIN", "MAX"),
                        help="plausible ones per minute; the species' own otherwise")  # fmt: skip
    parser.add_argument("--window", type=_positive, metavar="RATIO",
                        help="columns of a window over rows; recording.window otherwise")  # fmt: skip
    parser.add_argument("--quality", type=Path, metavar="SPANS.csv",
                        help="start_s, end_s, quality (good or bad)[, name]; bad is excluded")  # fmt: skip
    options = parser.parse_args(argv)
    params = load_params()

    from heartseg.data.recording import bad_columns, read_recording, read_spans
    from heartseg.metrics.mmode import SPECIES
    from heartseg.models.strips import predict_strip

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
        print(_report(rows[-1], species))
    if rows:
        _write_summary(rows, options.out)
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
    import pandas as pd
    from PIL import Image

    from heartseg.metrics.mmode import follow, summarise_beats
    from heartseg.metrics.walls import Column
    from heartseg.report.figures import save
    from heartseg.report.recording import beat_table, recording_figure, summary_row

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
    traces = pd.DataFrame(
        {
            "time_s": (np.arange(mask.shape[1]) + 0.5) * strip.spacing[1],
            "upper_mm": walls.upper,
            "lower_mm": walls.lower,
            "lvid_mm": walls.diameter,
            "column": [Column(kind).name.lower() for kind in walls.columns],
        }
    )
    figure = recording_figure(strip.image, strip.spacing, walls, pieces, _title(row))
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".") as folder:
        temporary = Path(folder)
        beat_table(pieces, species).to_csv(temporary / f"{strip.name}_beats.csv", index=False)
        traces.to_csv(temporary / f"{strip.name}_traces.csv", index=False, float_format="%.6g")
        Image.fromarray(mask.astype(np.uint8) * 255).save(temporary / f"{strip.name}_mask.png")
        save(figure, temporary / f"{strip.name}_figure.png")
        for file in temporary.iterdir():
            os.replace(file, out / file.name)
    for note in strip.notes:
        print(f"{strip.name}: {note}")
    return row


def _title(row: dict[str, Any]) -> str:
    return (
        f"{row['name']}: LVIDd {row['lvidd_mm']:.2f} mm, LVIDs {row['lvids_mm']:.2f} mm, "
        f"FS {row['fs_percent']:.0f} %, EF {row['ef_teichholz_percent']:.0f} % (Teichholz), "
        f"{row['heart_rate_bpm']:.0f} beats/min, {row['complete_beats']} complete beats"
    )


def _report(row: dict[str, Any], species: Species) -> str:
    """A few lines for the terminal, with a warning where the spacing looks wrong."""
    text = (
        f"{_title(row)}\n  SDNN {row['sdnn_ms']:.1f} ms, RMSSD {row['rmssd_ms']:.1f} ms; of "
        f"{row['seconds']:.2f} s {row['used_fraction']:.1%} counted, {row['missing_fraction']:.1%} "
        f"without LV, {row['implausible_fraction']:.1%} implausible, "
        f"{row['bad_quality_fraction']:.1%} of bad quality"
    )
    low, high = species.diameters
    if row["lvidd_mm"] < low or row["lvidd_mm"] > high:
        text += (
            f"\n  an LVIDd of {row['lvidd_mm']:.2f} mm is not within {low:g} to {high:g} mm: "
            f"is {row['mm_per_row']:g} mm per row (from {row['mm_per_row_from']}) right? "
            "Set it by --mm-per-row"
        )
    return text


def _write_summary(rows: list[dict[str, Any]], out: Path) -> None:
    import pandas as pd

    table = pd.DataFrame(rows)
    temporary = out / f".recordings.{os.getpid()}.tmp"
    table.to_csv(temporary, index=False)
    os.replace(temporary, out / "recordings.csv")
    print(f"wrote {out / 'recordings.csv'}: {len(table)} recording(s)")
    for line in _errors(table):
        print(line)


def _errors(table: pd.DataFrame) -> list[str]:
    """Bias and mean absolute error against known values, where windows.csv has them."""
    from heartseg.metrics.agreement import agreement

    lines = []
    for column, unit in (("lvidd_mm", "mm"), ("lvids_mm", "mm"), ("heart_rate_bpm", "1/min")):
        if (known := f"reference_{column}") in table:
            found = agreement(table[known], table[column])
            lines.append(
                f"  {column}: bias {found['bias']:+.2f} {unit}, MAE {found['mae']:.2f} {unit}, "
                f"n {found['n']}, not measured {found['missing']}"
            )
    return lines


if __name__ == "__main__":
    run_command(main)
