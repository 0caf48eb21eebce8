"""Phantoms in the layout of M-mode windows of mouse hearts: img/, mask/ and windows.csv.

An animal is one strip, depth down and time to the right, cut into square windows. Tissue is
layers of scatterers that move with the walls, which gives the streaks along the traces.
"""

from __future__ import annotations

import csv
from dataclasses import astuple, dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from heartseg.config import MmodePhantoms
from heartseg.data.phantoms import map_processes, mark_as_phantom
from heartseg.data.phantoms.strip import QUALITY, form_strip, make_motion


@dataclass(frozen=True)
class Window:
    """A line of windows.csv.

    Attributes:
        name: of the files in img/ and mask/, without ".png".
        mm_per_row, s_per_column: spacing.
        quality: "Good", "Medium" or "Poor".
        lvidd_mm, lvids_mm: mean LV inner diameter over the window's end-diastoles (starts of
            contraction) and end-systoles.
        heart_rate_bpm: from the mean interval between the window's end-diastoles.
        animal: name of the animal, with which its windows' names begin.
    """

    name: str
    mm_per_row: float
    s_per_column: float
    quality: str
    lvidd_mm: float
    lvids_mm: float
    heart_rate_bpm: float
    animal: str


def write_mmode(folder: Path, config: MmodePhantoms, workers: int) -> None:
    """Write the phantoms into the existing `folder`; the bytes do not depend on `workers`."""
    mark_as_phantom(folder, "M-mode windows", config.seed)
    for name in ("img", "mask"):
        (folder / name).mkdir()
    write = partial(_write_animal, folder, config)
    animals = map_processes(write, range(1, config.animals + 1), workers)
    with open(folder / "windows.csv", "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([field.name for field in fields(Window)])
        writer.writerows(astuple(window) for windows in animals for window in windows)


def _write_animal(folder: Path, config: MmodePhantoms, animal: int) -> list[Window]:
    windows = []
    for window, image, mask in make_animal(config, animal):
        for kind, pixels in (("img", image), ("mask", mask)):
            Image.fromarray(pixels).save(folder / kind / f"{window.name}.png")
        windows.append(window)
    return windows


def make_animal(config: MmodePhantoms, animal: int) -> list[tuple[Window, np.ndarray, np.ndarray]]:
    """An animal's windows with image and mask (0 or 255), uint8 (window, window)."""
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

    name = f"animal{animal:02d}"
    windows = []
    for number, start in enumerate(starts, start=1):
        cut = slice(start, start + size)
        in_diastole = (motion.diastoles >= start) & (motion.diastoles < start + size)
        in_systole = (motion.systoles >= start) & (motion.systoles < start + size)
        interval = float(np.diff(motion.diastoles[in_diastole]).mean()) * s_per_column
        window = Window(
            name=f"{name}_w{number}",
            mm_per_row=mm_per_row,
            s_per_column=s_per_column,
            quality=quality,
            lvidd_mm=round(float(motion.diastolic[in_diastole].mean()), 4),
            lvids_mm=round(float(motion.systolic[in_systole].mean()), 4),
            heart_rate_bpm=round(60 / interval, 2),
            animal=name,
        )
        windows.append((window, strip[:, cut], mask[:, cut]))
    return windows
