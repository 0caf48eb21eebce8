"""Graded degradation of M-mode phantoms: what makes an acquisition unfit to be measured.

All of it is done to the displayed gray values, which are log-compressed echoes: gain adds, and
attenuation subtracts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from heartseg.data.phantoms import ultrasound
from heartseg.datasets.mmode_quality import Quality

WORST_GRADE = 4
BAD_FROM = 3
"""Grades: 0 as it was, 1 slight, 2 clear and yet measurable by eye, 3 in most beats not
measurable, 4 hardly anything to be seen. Windows of grade 3 and 4 are labelled bad."""
JITTER = 0.3  # grades: severity varies within a grade, and no two grades meet

Walls = tuple[np.ndarray, np.ndarray]


def quality_of(grade: int) -> str:
    """The label of a window of that grade."""
    return (Quality.BAD if grade >= BAD_FROM else Quality.GOOD).name.lower()


def degrade(
    rng: np.random.Generator, image: np.ndarray, walls: Walls, mm_per_row: float,
    kind: str, grade: int,
) -> np.ndarray:  # fmt: skip
    """The image as a worse acquisition would show it, uint8 (H, W).

    Args:
        rng: of everything random here.
        image: uint8 (H, W).
        walls: depth in mm of the LV's inner borders, (W,) each.
        mm_per_row: spacing.
        kind: one of `DEGRADATIONS`.
        grade: 1 to WORST_GRADE.
    """
    severity = float((grade + rng.uniform(-JITTER, JITTER)) / WORST_GRADE)
    rows = (np.arange(len(image))[:, None] + 0.5) * mm_per_row
    outside = np.stack([walls[0] - rows, rows - walls[1]])  # mm beyond either border
    worse = DEGRADATIONS[kind](rng, image.astype(np.float32), outside, severity)
    return np.clip(np.rint(worse), 0, 255).astype(np.uint8)


def _shadow(
    rng: np.random.Generator, gray: np.ndarray, outside: np.ndarray, severity: float
) -> np.ndarray:
    """Columns without contact: up to 80 % of them nearly black, in one to three stretches."""
    lost = _stretches(rng, gray.shape[1], 0.8 * severity, int(rng.integers(1, 4)))
    return gray - rng.uniform(0.8, 1.0) * _soft(lost[None]) * _white(gray)


def _low_gain(
    rng: np.random.Generator, gray: np.ndarray, outside: np.ndarray, severity: float
) -> np.ndarray:
    """Too little gain: up to 85 % of the range of gray values is lost at its dark end."""
    return gray - 0.85 * severity * _white(gray)


def _haze(
    rng: np.random.Generator, gray: np.ndarray, outside: np.ndarray, severity: float
) -> np.ndarray:
    """Clutter over everything, up to the walls' own level: the contrast goes."""
    clutter = severity * _white(gray) * (0.4 + 0.3 * _grain(rng, gray.shape, (2, 4)))
    return np.maximum(gray, clutter) * (1 - 0.5 * severity) + 0.5 * severity * clutter


def _speckle(
    rng: np.random.Generator, gray: np.ndarray, outside: np.ndarray, severity: float
) -> np.ndarray:
    """Strong coarse speckle and electronic noise of a standard deviation up to the walls' level."""
    grain = ultrasound.smooth_field(rng, gray.shape, (rng.uniform(1.5, 3), rng.uniform(1.5, 3)))
    return gray + 0.55 * severity * grain * (0.4 * _white(gray) + gray)


def _saturation(
    rng: np.random.Generator, gray: np.ndarray, outside: np.ndarray, severity: float
) -> np.ndarray:
    """Too much gain: the cavity's noise rises up to the walls, which are white."""
    return gray * (1 + 1.5 * severity) + 200 * severity**1.5


def _wall_loss(
    rng: np.random.Generator, gray: np.ndarray, outside: np.ndarray, severity: float
) -> np.ndarray:
    """The beam is beside the heart's axis: the walls' echoes fade, over most of the columns."""
    lost = _stretches(rng, gray.shape[1], 0.4 + 0.6 * severity, 1)
    reach = rng.uniform(1.5, 3.0)  # mm
    both = rng.random() < 0.7
    sides = outside if both else outside[[rng.integers(2)]]
    walls = ((sides > -0.2) & (sides < reach)).any(axis=0)
    cavity = float(np.median(gray[(outside < 0).all(axis=0)]))
    fade = min(1.15 * severity, 1) * _soft(walls & lost)
    return gray * (1 - fade) + fade * cavity * _grain(rng, gray.shape, (0.8, 1.5))


def _motion(
    rng: np.random.Generator, gray: np.ndarray, outside: np.ndarray, severity: float
) -> np.ndarray:
    """The probe or the animal jerks: columns jump in depth, by up to a quarter of it."""
    rows, columns = gray.shape
    jerks = ultrasound.smooth_field(rng, (1, columns), (1, rng.uniform(2, 6)))
    moved = np.arange(rows)[:, None] + 0.1 * severity**1.5 * rows * jerks
    places = np.clip(np.rint(moved), 0, rows - 1).astype(np.intp)
    return np.take_along_axis(gray, places, axis=0)


Degradation = Callable[[np.random.Generator, np.ndarray, np.ndarray, float], np.ndarray]

DEGRADATIONS: dict[str, Degradation] = {
    "shadow": _shadow,
    "low_gain": _low_gain,
    "haze": _haze,
    "speckle": _speckle,
    "saturation": _saturation,
    "wall_loss": _wall_loss,
    "motion": _motion,
}


def _white(gray: np.ndarray) -> float:
    return max(float(np.percentile(gray, 99)), 1.0)


def _grain(
    rng: np.random.Generator, shape: tuple[int, int], scale: tuple[float, float]
) -> np.ndarray:
    """Speckle of mean about 1 and the given size in pixels, of Rayleigh's distribution."""
    fields = [ultrasound.smooth_field(rng, shape, scale) for _ in range(2)]
    return 0.8 * np.hypot(*fields)


def _soft(inside: np.ndarray) -> np.ndarray:
    """A region 0..1 whose edges are not sharper than anything else in the image."""
    return ndimage.gaussian_filter(inside.astype(np.float32), 2.0)


def _stretches(rng: np.random.Generator, columns: int, share: float, count: int) -> np.ndarray:
    """Which columns, bool (columns,), make up about `share` of all in `count` stretches."""
    field = np.zeros(columns, bool)
    length = max(round(columns * share / count), 1)
    room = columns // count
    for number in range(count):
        start = number * room + int(rng.integers(max(room - length, 0) + 1))
        field[start : start + length] = True
    return field
