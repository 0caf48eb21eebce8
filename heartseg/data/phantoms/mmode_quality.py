"""Phantoms for the classification of acquisition quality: img/ and windows.csv with good and bad.

Each window is a window of an M-mode phantom, degraded by a kind and grade (see `degrade`). Both are
in its name, such as animal01_w3_haze2, and the grade determines its label. As in real data, some
windows have no label. strips/ contains the whole strips with one bad span each, which is described
in degraded.csv.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from heartseg.config.data import MmodePhantoms
from heartseg.data.phantoms import map_processes, mark_as_phantom, write_table
from heartseg.data.phantoms.degrade import BAD_FROM, DEGRADATIONS, WORST_GRADE, degrade, quality_of
from heartseg.data.phantoms.mmode import STRIP_COLUMNS, AnimalStrip, make_strip

WINDOW_COLUMNS = ("name", "animal", "mm_per_row", "s_per_column", "quality", "kind", "grade")
SPAN_COLUMNS = ("recording", "start_s", "end_s", "kind", "grade")
UNLABELLED = 0.05  # probability that a window has no label
SPAN = (0.25, 0.4)  # range of the length of the bad span relative to the strip

Row = tuple[object, ...]


def write_quality(folder: Path, config: MmodePhantoms, workers: int) -> None:
    """Write the phantoms. The bytes do not depend on `workers`.

    Args:
        folder: Existing folder.
        config: Section of params.yaml.
        workers: Number of processes.
    """
    mark_as_phantom(folder, "M-mode windows of graded quality", config.seed)
    for name in ("img", "strips"):
        (folder / name).mkdir()
    write = partial(_write_animal, folder, config)
    animals = map_processes(write, range(1, config.animals + 1), workers)
    windows = [row for rows, _, _ in animals for row in rows]
    write_table(folder / "windows.csv", WINDOW_COLUMNS, windows)
    strips = folder / "strips"
    truths = [truth for _, truth, _ in animals]
    write_table(strips / "recordings.csv", ("recording", *STRIP_COLUMNS), truths)
    write_table(strips / "degraded.csv", SPAN_COLUMNS, [span for _, _, span in animals])


def _write_animal(
    folder: Path, config: MmodePhantoms, animal: int
) -> tuple[list[Row], list[object], Row]:
    whole = make_strip(config, animal)
    rng = np.random.default_rng([config.seed, animal, 1])
    rows = []
    for row, image in degraded_windows(rng, whole):
        rows.append(row)
        Image.fromarray(image).save(folder / f"img/{row[0]}.png")
    image, span = degraded_strip(rng, whole)
    truth = whole.truth
    Image.fromarray(image).save(folder / f"strips/{truth.name}.png")
    return rows, [truth.name, *(getattr(truth, key) for key in STRIP_COLUMNS)], span


def degraded_windows(rng: np.random.Generator, whole: AnimalStrip) -> list[tuple[Row, np.ndarray]]:
    """Return the row of windows.csv and the image, uint8 (size, size), of each window."""
    size = len(whole.image)
    found: list[tuple[Row, np.ndarray]] = []
    for window, start in zip(whole.windows, whole.starts, strict=True):
        cut = slice(int(start), int(start) + size)
        grade, kind = int(rng.integers(WORST_GRADE + 1)), str(rng.choice(list(DEGRADATIONS)))
        image = whole.image[:, cut]
        if grade:
            walls = (whole.motion.upper[cut], whole.motion.lower[cut])
            image = degrade(rng, image, walls, window.mm_per_row, kind, grade)
        else:
            kind = "none"
        label = "" if rng.random() < UNLABELLED else quality_of(grade)
        spacing = (window.mm_per_row, window.s_per_column)
        name = f"{window.name}_{kind}{grade}"
        found.append(((name, window.animal, *spacing, label, kind, grade), image))
    return found


def degraded_strip(rng: np.random.Generator, whole: AnimalStrip) -> tuple[np.ndarray, Row]:
    """Return the strip with one bad span, uint8 (H, W), and the row of degraded.csv."""
    columns = whole.image.shape[1]
    length = int(columns * rng.uniform(*SPAN))
    start = int(rng.integers(columns - length + 1))
    cut = slice(start, start + length)
    grade, kind = int(rng.integers(BAD_FROM, WORST_GRADE + 1)), str(rng.choice(list(DEGRADATIONS)))
    walls = (whole.motion.upper[cut], whole.motion.lower[cut])
    image = whole.image.copy()
    image[:, cut] = degrade(rng, image[:, cut], walls, whole.truth.mm_per_row, kind, grade)
    ends = (round(edge * whole.truth.s_per_column, 5) for edge in (start, start + length))
    return image, (whole.truth.name, *ends, kind, grade)
