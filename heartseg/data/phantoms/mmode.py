"""Phantoms in the layout of M-mode windows of mouse hearts: img/, mask/ and windows.csv.

The strip of each animal, with depth downwards and time to the right, is cut into square windows.
strips/ contains the whole strips and recordings.csv. Tissue consists of layers of scatterers that
move with the walls, which causes streaks along the traces.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from heartseg.config.data import MmodePhantoms
from heartseg.data.phantoms import map_processes, mark_as_phantom, write_table
from heartseg.data.phantoms.strip import QUALITY, Motion, form_strip, make_motion


@dataclass(frozen=True)
class WindowTruth:
    """True values of a window or strip, a row of windows.csv.

    Attributes:
        name: Name of the files in img/ and mask/, or of the strip, without ".png".
        mm_per_row, s_per_column: Spacing.
        quality: "Good", "Medium" or "Poor".
        lvidd_mm, lvids_mm: Mean inner diameters of the LV at the end-diastoles (starts of
            contraction) and end-systoles of the window.
        heart_rate_bpm: Heart rate from the mean interval between the end-diastoles of the window.
        animal: Name of the animal, with which the names of its windows begin.
    """

    name: str
    mm_per_row: float
    s_per_column: float
    quality: str
    lvidd_mm: float
    lvids_mm: float
    heart_rate_bpm: float
    animal: str


STRIP_COLUMNS = ("animal", "mm_per_row", "s_per_column", "lvidd_mm", "lvids_mm", "heart_rate_bpm")
"""Columns of recordings.csv, besides the name of the strip."""


@dataclass(frozen=True)
class AnimalStrip:
    """The whole strip of an animal, and the windows cut from it.

    Attributes:
        image: uint8 (rows, columns).
        mask: uint8 (rows, columns), 0 or 255.
        motion: Motion of the walls.
        truth: True values of the whole strip.
        windows: True values of the windows, in the order of time.
        starts: First column of each window.
    """

    image: np.ndarray
    mask: np.ndarray
    motion: Motion
    truth: WindowTruth
    windows: list[WindowTruth]
    starts: np.ndarray


def write_mmode(folder: Path, config: MmodePhantoms, workers: int) -> None:
    """Write the phantoms. The bytes do not depend on `workers`.

    Args:
        folder: Existing folder.
        config: Section of params.yaml.
        workers: Number of processes.
    """
    mark_as_phantom(folder, "M-mode windows", config.seed)
    for name in ("img", "mask", "strips"):
        (folder / name).mkdir()
    write = partial(_write_animal, folder, config)
    animals = map_processes(write, range(1, config.animals + 1), workers)
    windows = [astuple(window) for _, own in animals for window in own]
    write_table(folder / "windows.csv", [field.name for field in fields(WindowTruth)], windows)
    truths = [[t.name, *(getattr(t, key) for key in STRIP_COLUMNS)] for t, _ in animals]
    write_table(folder / "strips/recordings.csv", ["recording", *STRIP_COLUMNS], truths)


def _write_animal(
    folder: Path, config: MmodePhantoms, animal: int
) -> tuple[WindowTruth, list[WindowTruth]]:
    whole = make_strip(config, animal)
    for window, image, mask in cut_windows(whole):
        for kind, pixels in (("img", image), ("mask", mask)):
            Image.fromarray(pixels).save(folder / kind / f"{window.name}.png")
    Image.fromarray(whole.image).save(folder / f"strips/{whole.truth.name}.png")
    return whole.truth, whole.windows


def make_animal(
    config: MmodePhantoms, animal: int
) -> list[tuple[WindowTruth, np.ndarray, np.ndarray]]:
    """Return the windows of an animal with image and mask (0 or 255), uint8 (window, window)."""
    return cut_windows(make_strip(config, animal))


def cut_windows(whole: AnimalStrip) -> list[tuple[WindowTruth, np.ndarray, np.ndarray]]:
    """Return the square windows of a strip with image and mask."""
    cuts = [slice(start, start + len(whole.image)) for start in whole.starts]
    return [
        (window, whole.image[:, cut], whole.mask[:, cut])
        for window, cut in zip(whole.windows, cuts, strict=True)
    ]


def make_strip(config: MmodePhantoms, animal: int) -> AnimalStrip:
    """Form the strip of an animal, which ends with its last window."""
    rng = np.random.default_rng([config.seed, animal])
    size = config.window
    quality = str(rng.choice(list(QUALITY), p=[0.4, 0.4, 0.2]))
    mm_per_row = round(rng.uniform(8, 11.5) / size, 6)
    beat = 60 / rng.uniform(350, 650)  # s
    s_per_column = round(beat * rng.uniform(2.4, 3.6) / size, 7)
    gaps = rng.integers(0, size // 3, config.windows_per_animal)
    starts = np.cumsum(gaps) + size * np.arange(config.windows_per_animal)
    columns = int(starts[-1]) + size

    depth = size * mm_per_row
    motion = make_motion(rng, columns, beat / s_per_column, depth)
    strip = form_strip(rng, motion, size, mm_per_row, QUALITY[quality])
    rows = (np.arange(size)[:, None] + 0.5) * mm_per_row
    mask = np.where((rows >= motion.upper) & (rows < motion.lower), 255, 0).astype(np.uint8)

    animal_name = f"animal{animal:02d}"

    def truth(name: str, start: int, end: int) -> WindowTruth:
        in_diastole = (motion.diastoles >= start) & (motion.diastoles < end)
        in_systole = (motion.systoles >= start) & (motion.systoles < end)
        interval = float(np.diff(motion.diastoles[in_diastole]).mean()) * s_per_column
        return WindowTruth(
            name=name,
            mm_per_row=mm_per_row,
            s_per_column=s_per_column,
            quality=quality,
            lvidd_mm=round(float(motion.diastolic[in_diastole].mean()), 4),
            lvids_mm=round(float(motion.systolic[in_systole].mean()), 4),
            heart_rate_bpm=round(60 / interval, 2),
            animal=animal_name,
        )

    windows = [
        truth(f"{animal_name}_w{number}", start, start + size)
        for number, start in enumerate(starts, start=1)
    ]
    return AnimalStrip(strip, mask, motion, truth(animal_name, 0, columns), windows, starts)
