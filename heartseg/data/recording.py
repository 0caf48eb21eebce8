"""Reader for whole M-mode recordings: a PNG strip, its spacing, and spans of bad quality."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from heartseg.config import MmodeDataset
from heartseg.data.mmode import SHORTEST_SIDE
from heartseg.data.mmode_table import read_numbers, read_windows_csv
from heartseg.data.source import one_line
from heartseg.errors import InputError

SPAN_COLUMNS = ("start_s", "end_s", "quality")
QUALITIES = ("good", "bad")


@dataclass(frozen=True)
class Recording:
    """A strip of any length.

    Attributes:
        name: the file name without its ending.
        image: uint8 (H, W), depth down and time to the right.
        spacing: (mm per row, s per column).
        spacing_from: where each of the two was found.
        reference: known values by the columns of windows.csv (lvidd_mm, lvids_mm,
            heart_rate_bpm), {} where there are none.
        notes: gaps that are no faults.
    """

    name: str
    image: np.ndarray
    spacing: tuple[float, float]
    spacing_from: tuple[str, str]
    reference: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Span:
    """A stretch of time of a recording, in s, and whether its acquisition is good.

    Attributes:
        name: of the recording, "" for any.
    """

    start_s: float
    end_s: float
    good: bool
    name: str = ""


def read_recording(
    path: Path, mm_per_row: float | None, s_per_column: float | None, config: MmodeDataset
) -> Recording:
    """Read a strip; each spacing is the one given, else that of windows.csv beside the strip,
    else that of params.yaml.

    Raises:
        InputError: "path: reason. Remedy."
    """
    image = _read_gray(path)
    notes: list[str] = []
    faults: list[str] = []
    table = path.parent / "windows.csv"
    siblings = {file.stem for file in path.parent.glob("*.[pP][nN][gG]")}
    row = read_windows_csv(table, siblings, []).get(path.stem, {})
    if table.exists() and not row:
        notes.append(f"{table} has no row {path.stem}")
    known = read_numbers(row, table, faults)
    if faults:
        raise InputError("\n".join(faults))
    spacing, origins = [], []
    for column, given in (("mm_per_row", mm_per_row), ("s_per_column", s_per_column)):
        found = known.pop(column, None)
        value = next(v for v in (given, found, getattr(config, column)) if v is not None)
        origin = "params.yaml" if found is None else table.name
        spacing.append(value)
        origins.append(origin if given is None else "command line")
    return Recording(
        path.stem,
        image,
        (spacing[0], spacing[1]),
        (origins[0], origins[1]),
        known,
        tuple(notes),
    )


def _read_gray(path: Path) -> np.ndarray:
    """A PNG as uint8 (H, W), at least one column wide."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # a long recording is no decompression bomb
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            mode, (width, height) = picture.mode, picture.size
            if mode.startswith(("I", "F")):
                raise InputError(f"{path}: has the mode {mode}, not 8 bits. Export 8-bit gray.")
            pixels = np.array(picture.convert("L"))
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: does not exist. Give a PNG file.") from None
    except Exception as error:  # Pillow raises many kinds on a broken file
        raise InputError(
            f"{path}: cannot be read ({one_line(error)}). Export it again as PNG."
        ) from None
    if height < SHORTEST_SIDE:
        raise InputError(f"{path}: has {height} x {width} pixels, too few rows. Export it again.")
    return pixels


def read_spans(path: Path, recordings: Sequence[str]) -> list[Span]:
    """Spans of good or bad acquisition: CSV with start_s, end_s, quality (good or bad).

    A column `name` says which recording a span belongs to; with several recordings it is needed.

    Raises:
        InputError: "path: reason. Remedy."
    """
    remedy = f"Give it the columns {', '.join(SPAN_COLUMNS)} (good or bad)[, name]."
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            header, rows = list(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}). {remedy}") from None
    if absent := [column for column in SPAN_COLUMNS if column not in header]:
        raise InputError(f"{path}: has no column {', '.join(absent)}. {remedy}")
    if "name" not in header and len(recordings) > 1:
        raise InputError(f"{path}: does not say which recording is meant. Add a column name.")
    spans = []
    for number, row in enumerate(rows, start=1):
        try:
            start, end = float(row["start_s"]), float(row["end_s"])
        except (TypeError, ValueError):
            start = end = math.nan
        quality = (row["quality"] or "").strip().lower()
        name = (row.get("name") or "").strip().removesuffix(".png")
        if not 0 <= start < end < math.inf:
            raise InputError(f"{path}: row {number} is no span of time. Give 0 <= start_s < end_s.")
        if quality not in QUALITIES:
            raise InputError(f"{path}: row {number} has the quality {quality!r}. {remedy}")
        spans.append(Span(start, end, quality == "good", name))
    if unknown := sorted({span.name for span in spans} - {"", *recordings}):
        raise InputError(
            f"{path}: names {unknown[0]}, which is none of the recordings. Correct it."
        )
    return spans


def bad_columns(spans: Sequence[Span], name: str, columns: int, s_per_column: float) -> np.ndarray:
    """Boolean (columns,): the column's centre lies in a bad span; what no span covers is good."""
    times = (np.arange(columns) + 0.5) * s_per_column
    bad = np.zeros(columns, bool)
    for span in spans:
        if not span.good and span.name in ("", name):
            bad |= (times >= span.start_s) & (times < span.end_s)
    return bad
