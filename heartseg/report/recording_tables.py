"""The tables of measured M-mode recordings; units are in the names of their columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from heartseg.data.species import Scale
from heartseg.metrics.agreement import agreement
from heartseg.metrics.beats import Beat
from heartseg.metrics.mmode import (
    Measurements,
    Species,
    fractional_shortening,
    teichholz_ef,
    teichholz_volume,
)
from heartseg.metrics.walls import Column, Walls


def beat_table(pieces: Sequence[Sequence[Beat]], species: Species) -> pd.DataFrame:
    """A row per beat; units are in the column names."""
    unit = species.volume_unit
    rows = []
    for number, piece in enumerate(pieces, start=1):
        for beat in piece:
            edv = teichholz_volume(beat.lvidd_mm, species)
            esv = teichholz_volume(beat.lvids_mm, species)
            rows.append(
                {
                    "piece": number,
                    "diastole_s": beat.diastole_s,
                    "systole_s": beat.systole_s,
                    "half_contraction_s": beat.contraction_s,
                    "lvidd_mm": beat.lvidd_mm,
                    "lvids_mm": beat.lvids_mm,
                    "fs_percent": fractional_shortening(beat.lvidd_mm, beat.lvids_mm),
                    f"edv_teichholz_{unit}": edv,
                    f"esv_teichholz_{unit}": esv,
                    f"stroke_volume_teichholz_{unit}": edv - esv,
                    "ef_teichholz_percent": teichholz_ef(beat.lvidd_mm, beat.lvids_mm, species),
                    "interval_to_next_beat_ms": 1000 * beat.interval_s,
                    "heart_rate_bpm": 60 / beat.interval_s,
                }
            )
    columns = list(rows[0]) if rows else ["piece", "diastole_s", "systole_s"]
    return pd.DataFrame(rows, columns=columns)


def summary_row(
    values: Measurements, walls: Walls, pieces: Sequence[Sequence[Beat]], species: Species
) -> dict[str, Any]:
    """Medians over the beats, and what was counted; units are in the keys."""
    named = asdict(values)
    unit = species.volume_unit
    edv, esv, ef = named.pop("edv"), named.pop("esv"), named.pop("ef_percent")
    rate = named.pop("hr_bpm")
    beats = [beat for piece in pieces for beat in piece]
    return {
        "lvidd_mm": named.pop("lvidd_mm"),
        "lvids_mm": named.pop("lvids_mm"),
        "fs_percent": named.pop("fs_percent"),
        f"edv_teichholz_{unit}": edv,
        f"esv_teichholz_{unit}": esv,
        "ef_teichholz_percent": ef,
        "heart_rate_bpm": rate,
        **named,
        "complete_beats": sum(np.isfinite(b.lvidd_mm) and np.isfinite(b.lvids_mm) for b in beats),
        "intervals": sum(np.isfinite(b.interval_s) for b in beats),
        "used_fraction": walls.fraction(Column.USED),
        "missing_fraction": walls.fraction(Column.MISSING),
        "implausible_fraction": walls.fraction(Column.IMPLAUSIBLE),
        "bad_quality_fraction": walls.fraction(Column.BAD_QUALITY),
    }


def trace_table(walls: Walls, s_per_column: float) -> pd.DataFrame:
    """A row per column of the strip: walls and LVID over time, NaN where it is not used."""
    return pd.DataFrame(
        {
            "time_s": (np.arange(len(walls.columns)) + 0.5) * s_per_column,
            "upper_mm": walls.upper,
            "lower_mm": walls.lower,
            "lvid_mm": walls.diameter,
            "column": [Column(kind).name.lower() for kind in walls.columns],
        }
    )


def headline_text(row: dict[str, Any]) -> str:
    return (
        f"{row['name']}: LVIDd {row['lvidd_mm']:.2f} mm, LVIDs {row['lvids_mm']:.2f} mm, "
        f"FS {row['fs_percent']:.0f} %, EF {row['ef_teichholz_percent']:.0f} % (Teichholz), "
        f"{row['heart_rate_bpm']:.0f} beats/min, {row['complete_beats']} complete beats"
    )


def report_text(row: dict[str, Any]) -> str:
    """A few lines for the terminal."""
    text = (
        f"{headline_text(row)}\n  SDNN {row['sdnn_ms']:.1f} ms, RMSSD {row['rmssd_ms']:.1f} ms; of "
        f"{row['seconds']:.2f} s {row['used_fraction']:.1%} counted, {row['missing_fraction']:.1%} "
        f"without LV, {row['implausible_fraction']:.1%} implausible, "
        f"{row['bad_quality_s']:.2f} s ({row['bad_quality_fraction']:.1%}) of bad quality"
    )
    return text + (f" by {row['quality_by']}" if row["quality_by"] else "")


def scale_warnings(
    row: dict[str, Any], scale: Scale, species: Species, rates: tuple[float, float]
) -> list[str]:
    """Notes on a measured strip whose scale looks wrong, although a heart could fit it.

    Args:
        row: of `summary_row`, with the strip's name and its seconds.
        scale: of the strip.
        species: whose heart.
        rates: slowest and fastest plausible heart rate in beats per minute.
    """
    notes = []
    low, high = species.diameters
    if row["lvidd_mm"] < low or row["lvidd_mm"] > high:
        notes.append(
            f"{row['name']}: an LVIDd of {row['lvidd_mm']:.2f} mm is not within {low:g} to "
            f"{high:g} mm ({species.name}): is {scale.mm_per_row:g} mm per row right? "
            f"({scale.sources[0]})"
        )
    if row["seconds"] < 60.0 / rates[1]:
        notes.append(
            f"{row['name']}: lasts {row['seconds']:.3g} s, less than a beat, so that its diameters "
            "are those of a part of a beat"
        )
    return notes


def error_lines(table: pd.DataFrame, species: Species) -> list[str]:
    """Bias and mean absolute error against known values, for the recordings that have them.

    Args:
        table: rows of `summary_row` with reference_lvidd_mm, reference_lvids_mm and
            reference_heart_rate_bpm where known.
        species: whose Teichholz formula makes the reference EF.
    """
    names = [f"reference_{name}" for name in ("lvidd_mm", "lvids_mm", "heart_rate_bpm")]
    lvidd, lvids, rate = (table.reindex(columns=names)[name].astype(float) for name in names)
    lines = []
    for column, reference, unit in (
        ("lvidd_mm", lvidd, "mm"),
        ("lvids_mm", lvids, "mm"),
        ("fs_percent", fractional_shortening(lvidd, lvids), "points"),
        ("ef_teichholz_percent", teichholz_ef(lvidd, lvids, species), "points"),
        ("heart_rate_bpm", rate, "1/min"),
    ):
        known = reference.notna()
        if known.any():
            found = agreement(reference[known], table.loc[known, column])
            lines.append(
                f"  {column}: bias {found['bias']:+.2f} {unit}, MAE {found['mae']:.2f} {unit}, "
                f"n {found['n']}, not measured {found['missing']}"
            )
    return lines
