"""Graded degradation of M-mode phantoms, by faults that prevent measurements.

The displayed gray values are modified. As they are log-compressed echoes, gain is added and
attenuation is subtracted.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from heartseg.data.phantoms import ultrasound
from heartseg.datasets.mmode_quality import Quality

WORST_GRADE = 4
BAD_FROM = 3
"""First grade of the label bad. Grades are 0 (unchanged), 1 (slight), 2 (clear, but measurable by
eye), 3 (not measurable in most beats) and 4 (hardly anything visible)."""
JITTER = 0.3
"""Range of the random severity within a grade. Grades do not overlap."""

Walls = tuple[np.ndarray, np.ndarray]


def quality_of(grade: int) -> str:
    """Return the label of a window of a grade."""
    return (Quality.BAD if grade >= BAD_FROM else Quality.GOOD).name.lower()


def degrade(
    rng: np.random.Generator, image: np.ndarray, walls: Walls, mm_per_row: float,
    kind: str, grade: int,
) -> np.ndarray:  # fmt: skip
    """Degrade an image like a poor acquisition.

    Args:
        rng: Random number generator.
        image: uint8 (H, W).
        walls: Depths of the inner borders of the LV in mm, each (W,).
        mm_per_row: Spacing in mm.
        kind: Key of `DEGRADATIONS`.
        grade: Grade from 1 to WORST_GRADE.

    Returns:
        uint8 (H, W).
    """
    severity = float((grade + rng.uniform(-JITTER, JITTER)) / WORST_GRADE)
    rows = (np.arange(len(image))[:, None] + 0.5) * mm_per_row
    outside = np.stack([walls[0] - rows, rows - walls[1]])  # mm beyond either border
    worse = DEGRADATIONS[kind](rng, image.astype(np.float32), outside, severity)
    return np.clip(np.rint(worse), 0, 255).astype(np.uint8)


def _shadow(
    rng: np.random.Generator, gray: np.ndarray, outside: np.ndarray, severity: float
) -> np.ndarray:
    """Add shadows: up to 80 % of the columns are nearly black, in one to three intervals."""
    lost = _intervals(rng, gray.shape[1], 0.8 * severity, int(rng.integers(1, 4)))
    return gray - rng.uniform(0.8, 1.0) * _soft(lost[None]) * _white(gray)


def _low_gain(
    rng: np.random.Generator, gray: np.ndarray, outside: np.ndarray, severity: float
) -> np.ndarray:
    """Reduce the gain, so that up to 85 % of the gray values become black."""
    return gray - 0.85 * severity * _white(gray)


def _haze(
    rng: np.random.Generator, gray: np.ndarray, outside: np.ndarray, severity: float
) -> np.ndarray:
    """Add clutter up to the level of the walls, which reduces the contrast."""
    clutter = severity * _white(gray) * (0.4 + 0.3 * _grain(rng, gray.shape, (2, 4)))
    return np.maximum(gray, clutter) * (1 - 0.5 * severity) + 0.5 * severity * clutter


def _speckle(
    rng: np.random.Generator, gray: np.ndarray, outside: np.ndarray, severity: float
) -> np.ndarray:
    """Add coarse speckle and noise with a standard deviation up to the level of the walls."""
    grain = ultrasound.smooth_field(rng, gray.shape, (rng.uniform(1.5, 3), rng.uniform(1.5, 3)))
    return gray + 0.55 * severity * grain * (0.4 * _white(gray) + gray)


def _saturation(
    rng: np.random.Generator, gray: np.ndarray, outside: np.ndarray, severity: float
) -> np.ndarray:
    """Increase the gain, so that the noise of the cavity is as bright as the saturated walls."""
    return gray * (1 + 1.5 * severity) + 200 * severity**1.5


def _wall_loss(
    rng: np.random.Generator, gray: np.ndarray, outside: np.ndarray, severity: float
) -> np.ndarray:
    """Fade the walls over most of the columns, as if the beam were beside the axis of the heart."""
    lost = _intervals(rng, gray.shape[1], 0.4 + 0.6 * severity, 1)
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
    """Shift columns in depth by up to a quarter, as if the probe or the animal moved suddenly."""
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
    """Return the gray value of bright walls."""
    return max(float(np.percentile(gray, 99)), 1.0)


def _grain(
    rng: np.random.Generator, shape: tuple[int, int], scale: tuple[float, float]
) -> np.ndarray:
    """Draw Rayleigh distributed speckle with a mean of about 1 and a size of `scale` pixels."""
    fields = [ultrasound.smooth_field(rng, shape, scale) for _ in range(2)]
    return 0.8 * np.hypot(*fields)


def _soft(inside: np.ndarray) -> np.ndarray:
    """Blur the edges of a region, so that they are not sharper than the image."""
    return ndimage.gaussian_filter(inside.astype(np.float32), 2.0)


def _intervals(rng: np.random.Generator, columns: int, fraction: float, count: int) -> np.ndarray:
    """Draw `count` intervals that contain about a fraction of the columns, bool (columns,)."""
    field = np.zeros(columns, bool)
    length = max(round(columns * fraction / count), 1)
    room = columns // count
    for number in range(count):
        start = number * room + int(rng.integers(max(room - length, 0) + 1))
        field[start : start + length] = True
    return field
