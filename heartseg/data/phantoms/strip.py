"""M-mode strip of a mouse heart: motion of the walls of the left ventricle, and image formation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from heartseg.data.phantoms import ultrasound


@dataclass(frozen=True)
class ImagingQuality:
    """Parameters of the image quality of an animal.

    Attributes:
        contrast: Contrast of the walls against the noise of the cavity in dB.
        fading: Standard deviation of the echo of the walls over time in dB.
    """

    contrast: float
    fading: float


QUALITY = {
    "Good": ImagingQuality(21, 3.5),
    "Medium": ImagingQuality(16, 5),
    "Poor": ImagingQuality(12, 6),
}


@dataclass(frozen=True)
class Motion:
    """Motion of the walls of a strip.

    Attributes:
        upper, lower: Depth of the inner borders of the LV in mm, by column.
        diastoles, systoles: Columns of the end-diastoles and end-systoles, as float.
        diastolic, systolic: Inner diameters of the LV at these columns in mm.
    """

    upper: np.ndarray
    lower: np.ndarray
    diastoles: np.ndarray
    systoles: np.ndarray
    diastolic: np.ndarray
    systolic: np.ndarray


def make_motion(
    rng: np.random.Generator, columns: int, beat: float, depth: float, irregularity: float = 0.02
) -> Motion:
    """Draw the wall traces of a strip: fast contraction, slower relaxation, and breathing.

    Args:
        rng: Random number generator.
        columns: Number of columns of the strip.
        beat: Mean number of columns per beat.
        depth: Depth of the strip in mm.
        irregularity: Standard deviation of the intervals between beats relative to their mean.
    """
    lvidd = rng.uniform(3.0, 4.5)
    lvids = np.clip(lvidd * (1 - rng.uniform(0.18, 0.5)), 1.5, 3.5)
    systole = rng.uniform(0.34, 0.46)  # fraction of the beat until the smallest diameter
    beats = int(np.ceil(columns / beat)) + 4
    intervals = beat * (1 + irregularity * rng.standard_normal(beats))
    starts = np.concatenate([[0], np.cumsum(intervals)]) - beat * rng.uniform(1.0, 2.0)
    largest = lvidd * (1 + 0.012 * rng.standard_normal(beats + 1))
    smallest = lvids * (1 + 0.02 * rng.standard_normal(beats))

    time = np.arange(columns) + 0.5
    k = np.searchsorted(starts, time, side="right") - 1
    phase = (time - starts[k]) / intervals[k]
    down = 1 - (1 - np.cos(np.pi * np.clip(phase / systole, 0, 1))) / 2
    late = np.clip((phase - systole) / (1 - systole), 0, 1)
    filling = rng.uniform(1.2, 2.2)  # early filling is fast, then the walls hardly move
    up = 1 - (1 - late) ** filling * (1 + np.cos(np.pi * late)) / 2
    contracting = phase < systole
    diameter = np.where(
        contracting,
        smallest[k] + (largest[k] - smallest[k]) * down,
        smallest[k] + (largest[k + 1] - smallest[k]) * up,
    )

    # Both walls also move in parallel, with the beat and with breathing.
    together = rng.uniform(0.0, 0.2) * np.sin(2 * np.pi * (phase + rng.uniform()))
    breath = beat * rng.uniform(4, 8)
    together += rng.uniform(0.03, 0.2) * np.sin(2 * np.pi * (time / breath + rng.uniform()))
    lower_fraction = rng.uniform(0.35, 0.6)  # of the contraction, by the lower wall
    middle = np.clip(depth * rng.uniform(0.42, 0.52), lvidd / 2 + 1.8, depth - lvidd / 2 - 1.6)
    upper = middle - lvidd / 2 + (1 - lower_fraction) * (lvidd - diameter) + together
    return Motion(
        upper=upper,
        lower=upper + diameter,
        diastoles=starts[:-1],
        systoles=starts[:-1] + systole * intervals,
        diastolic=largest[:-1],
        systolic=smallest,
    )


def form_strip(
    rng: np.random.Generator, motion: Motion, rows: int, mm_per_row: float, quality: ImagingQuality
) -> np.ndarray:
    """Form the image of a strip, uint8 (rows, columns).

    Args:
        rng: Random number generator.
        motion: Motion of the walls.
        rows: Number of rows.
        mm_per_row: Spacing in mm.
        quality: Parameters of the image quality.
    """
    layers = _layers(rng, motion, rows * mm_per_row)
    still = layers[:, np.argmax(motion.lower - motion.upper)]  # the layers at end-diastole
    step = mm_per_row / 2
    depth = np.arange(0, still[-1], step)
    echo = _tissue(rng, depth, still, layers.shape[1], quality)

    # Every pixel shows the tissue that has moved to its depth.
    row_depths = (np.arange(rows) + 0.5) * mm_per_row
    material = np.stack([np.interp(row_depths, column, still) for column in layers.T], axis=1)
    index = np.minimum((material / step).astype(np.intp), depth.size - 1)
    echo = np.take_along_axis(echo, index, axis=0)

    noise = 2 * ultrasound.smooth_field(rng, echo.shape, (rows / 8, 60))
    echo += ultrasound.scatterers(rng, echo.shape) * ultrasound.amplitude(noise)
    bands = 5 * ultrasound.smooth_field(rng, (rows, echo.shape[1]), (4, 400)) - rng.uniform(6, 16)
    echo += ultrasound.scatterers(rng, (rows, 1)) * ultrasound.amplitude(bands)  # reverberation
    level = ultrasound.decibel(ultrasound.envelope(echo, (max(0.045 / mm_per_row, 0.6), 0.8)))
    level = level - rng.uniform(0, 8) * (row_depths[:, None] / row_depths[-1])  # attenuation
    white = quality.contrast + rng.uniform(8, 18)
    gray = ultrasound.compress(level, white, white + rng.uniform(8, 20), rng.uniform(1.2, 2.2))
    gray = ndimage.gaussian_filter(gray, (0.5, 0.7), truncate=3.0)  # smoothing by the machine
    return np.rint(gray).astype(np.uint8)


def _layers(rng: np.random.Generator, motion: Motion, depth: float) -> np.ndarray:
    """Return the depths of eight borders in mm, (8, columns), in increasing order.

    They are the probe, the skin, the outer and inner border of the upper wall, the inner and outer
    border of the lower wall, the pericardium, and a constant depth below the image.
    """
    diameter = motion.lower - motion.upper
    thickening = 1 + rng.uniform(0.5, 1.0) * (1 - diameter / diameter.max())
    upper_wall, lower_wall = rng.uniform(0.65, 1.0, 2)
    upper_outer = np.maximum(motion.upper - upper_wall * thickening, 0.35)
    lower_outer = motion.lower + lower_wall * thickening
    skin = 0.7 * upper_outer.min() * np.ones_like(diameter)
    pericardium = lower_outer + rng.uniform(0.1, 0.5)
    return np.stack(
        [
            0 * skin,
            skin,
            upper_outer,
            motion.upper,
            motion.lower,
            lower_outer,
            pericardium,
            np.full_like(skin, max(depth, pericardium.max()) + 1),
        ]
    )


def _tissue(
    rng: np.random.Generator,
    depth: np.ndarray,
    still: np.ndarray,
    columns: int,
    quality: ImagingQuality,
) -> np.ndarray:
    """Return the echoes at material depths over time, complex (depths, columns).

    Args:
        rng: Random number generator.
        depth: Material depths in mm (depths,), which are the depths at end-diastole.
        still: Depths of the borders of `_layers` at end-diastole (8,).
        columns: Number of columns.
        quality: Parameters of the image quality. The noise has 0 dB.
    """
    step = depth[1] - depth[0]
    shape = (depth.size, columns)
    skin, upper_outer, upper, lower, lower_outer, pericardium = still[1:-1]
    walls = quality.contrast + rng.uniform(-8, 0, 5)
    d = depth[:, None]
    layering = 4 * ultrasound.smooth_field(rng, shape, (0.12 / step, 120))
    patches = quality.fading * ultrasound.smooth_field(rng, shape, (0.8 / step, 40))
    db = np.select(
        [d < skin, d < upper_outer, d < upper, d < lower, d < lower_outer, d < pericardium],
        [walls[0], walls[1] - 4, walls[2], -60.0, walls[3], walls[4] - 3],
        default=0.0,
    )
    below = np.where(d > pericardium, quality.contrast - 4 - 14 * (d - pericardium), -60)
    db = np.maximum(db, below)
    db = db + np.where(db > -40, layering + patches, 0)
    for border, width, extra in (
        (upper_outer, 0.08, rng.uniform(-2, 8)),
        (upper - 0.06, 0.09, rng.uniform(-3, 6)),
        (lower + 0.06, 0.09, rng.uniform(-4, 5)),
        (pericardium, 0.14, rng.uniform(4, 14)),
    ):
        come_and_go = 1.2 * quality.fading * ultrasound.smooth_field(rng, (1, columns), (1, 25))
        line = quality.contrast + extra + come_and_go - 8 * ((d - border) / width) ** 2
        db = np.maximum(db, line)
    for _ in range(rng.integers(0, 5)):  # chordae and papillary muscle, which move in the cavity
        place = lower - rng.uniform(0.1, 0.35) * (lower - upper)
        seen = 2.0 * quality.fading * ultrasound.smooth_field(rng, (1, columns), (1, 20))
        db = np.maximum(db, quality.contrast - 10 + seen - 8 * ((d - place) / 0.06) ** 2)

    echo = ultrasound.scatterers(rng, shape)
    persistence = rng.uniform(3, 12)  # columns over which an echo is constant
    echo = ndimage.gaussian_filter1d(echo, persistence, axis=1, truncate=3.0)
    return echo * np.float32(np.sqrt(2 * np.sqrt(np.pi) * persistence)) * ultrasound.amplitude(db)
