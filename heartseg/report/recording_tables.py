"""The tables of measured M-mode recordings. The names of their columns contain the units."""

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
    """Return a row per beat.

    Args:
        pieces: Beats of each piece of the strip.
        species: Species, for Teichholz's formula and the unit of volumes.
    """
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
    """Return medians over the beats, counts of beats, and fractions of columns.

    Args:
        values: Medians over the beats.
        walls: Walls of the strip.
        pieces: Beats of each piece of the strip.
        species: Species, for the unit of volumes.
    """
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
    """Return walls and LVID over time, a row per column of the strip; NaN in unused columns."""
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
    """Return the main values of a row of `summary_row` in one line."""
    return (
        f"{row['name']}: LVIDd {row['lvidd_mm']:.2f} mm, LVIDs {row['lvids_mm']:.2f} mm, "
        f"FS {row['fs_percent']:.0f} %, EF {row['ef_teichholz_percent']:.0f} % (Teichholz), "
        f"{row['heart_rate_bpm']:.0f} beats/min, {row['complete_beats']} complete beats"
    )


def report_text(row: dict[str, Any]) -> str:
    """Return a row of `summary_row` as a few lines for the terminal."""
    text = (
        f"{headline_text(row)}\n  SDNN {row['sdnn_ms']:.1f} ms, RMSSD {row['rmssd_ms']:.1f} ms; of "
        f"{row['seconds']:.2f} s {row['used_fraction']:.1%} used, {row['missing_fraction']:.1%} "
        f"without LV, {row['implausible_fraction']:.1%} implausible, "
        f"{row['bad_quality_s']:.2f} s ({row['bad_quality_fraction']:.1%}) of bad quality"
    )
    return text + (f" by {row['quality_by']}" if row["quality_by"] else "")


def scale_warnings(
    row: dict[str, Any], scale: Scale, species: Species, rates: tuple[float, float]
) -> list[str]:
    """Return warnings about a measured strip whose scale may be wrong.

    Args:
        row: Row of `summary_row`, with the strip's name and its duration in seconds.
        scale: Scale of the strip.
        species: Species of the animal.
        rates: Slowest and fastest plausible heart rate in beats per minute.
    """
    notes = []
    low, high = species.diameters
    if row["lvidd_mm"] < low or row["lvidd_mm"] > high:
        notes.append(
            f"{row['name']}: LVIDd {row['lvidd_mm']:.2f} mm is outside of {low:g} to {high:g} mm "
            f"({species.name}). Check the scale, {scale.mm_per_row:g} mm per row "
            f"({scale.sources[0]})"
        )
    if row["seconds"] < 60.0 / rates[1]:
        notes.append(
            f"{row['name']}: lasts {row['seconds']:.3g} s, less than a beat, so its diameters "
            "belong to a part of a beat"
        )
    return notes


def error_lines(table: pd.DataFrame, species: Species) -> list[str]:
    """Return lines with bias and mean absolute error of the recordings with known values.

    Args:
        table: Rows of `summary_row` with reference_lvidd_mm, reference_lvids_mm and
            reference_heart_rate_bpm if they are known.
        species: Species, for the reference EF by Teichholz's formula.
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
