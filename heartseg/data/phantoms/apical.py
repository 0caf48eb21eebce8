"""Image formation of an apical view: echoes of the tissue and their display by the machine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from heartseg.data.phantoms import ultrasound
from heartseg.data.phantoms.ventricle import Ventricle
from heartseg.datasets.camus import Camus

MAP_STEP = 0.45  # mm between scatterers of the tissue map
MAP_ABOVE, MAP_BELOW, MAP_ASIDE = 45.0, 75.0, 125.0  # mm around the ventricle


@dataclass(frozen=True)
class ImagingQuality:
    """Parameters of the image quality of a patient.

    Attributes:
        haze: Clutter over the near half of the ventricle in dB.
        loss: Loss of the echo of the myocardium against its surroundings in dB.
        shadows: Probability of a shadow at each edge of the sector, and half the expected number of
            dropouts.
    """

    haze: float
    loss: float
    shadows: float


QUALITY = {
    "Good": ImagingQuality(-38, 0, 0.3),
    "Medium": ImagingQuality(-31, 2, 0.5),
    "Poor": ImagingQuality(-25, 4, 0.8),
}


class ApicalView:
    """One view of one patient, whose images are formed by `frame`.

    Args:
        ed, es: Ventricle at end-diastole and at end-systole.
        right_heart: Whether the view shows the right ventricle and atrium, like a four-chamber
            view.
        sector: Field of view.
        quality: Parameters of the image quality.
        seed: Seed of all random numbers of the view.
    """

    def __init__(
        self,
        ed: Ventricle,
        es: Ventricle,
        right_heart: bool,
        sector: ultrasound.Sector,
        quality: ImagingQuality,
        seed: list[int],
    ) -> None:
        rng = np.random.default_rng(seed)
        self._ed, self._es, self._sector, self._seed = ed, es, sector, seed
        self._tilt = np.radians(np.clip(rng.normal(0, 6), -13, 13))
        self._apex = np.array([rng.normal(0, 4), rng.uniform(7, 15)])  # outer apex, mm
        self._tissue = _tissue_map(rng, ed, right_heart, quality)
        self._gain = _gain(rng, sector, quality)
        self._near_field = _near_field(rng, sector)
        self._haze = _haze(rng, sector, quality)
        self._blood = ultrasound.amplitude(rng.uniform(-39, -31))
        self._leaflet_opening = rng.uniform(0.2, 0.8, 2)  # radians at ED, left and right
        self._leaflet_db = rng.uniform(-16, -5, 2)
        self._white = rng.uniform(-3, 6)
        self._dynamic_range = rng.uniform(50, 62)
        self._gamma = rng.uniform(1.0, 1.5)
        self._blur = (rng.uniform(1.1, 1.8), rng.uniform(0.7, 1.2))

    def frame(self, number: int, fraction: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the image and the label map of a frame, uint8 (lateral, depth).

        Args:
            number: Number of the frame, which seeds the echoes of the blood.
            fraction: Fraction of the contraction, from 0 (end-diastole) to 1 (end-systole).
        """
        now = self._ed.blend(self._es, fraction)
        rng = np.random.default_rng([*self._seed, number])
        angle, reach = self._sector.polar()
        z, w = self._heart(reach * np.sin(angle), reach * np.cos(angle), now)
        moving = self._blood + self._valve(z, w, now, fraction)
        echo = self._tissue_at(z, w, now) + self._near_field + self._haze
        echo += moving * ultrasound.scatterers(rng, echo.shape)
        db = ultrasound.decibel(ultrasound.envelope(echo, self._blur)) + self._gain
        gray = ultrasound.compress(db, self._white, self._dynamic_range, self._gamma)
        gray = ndimage.gaussian_filter(gray, (0.8, 0.6), truncate=3.0)  # smoothing by the machine
        labels = now.labels(*self._heart(*self._sector.pixels(), now))
        return self._sector.scan_convert(gray), labels

    def _heart(self, x: np.ndarray, y: np.ndarray, now: Ventricle) -> tuple[np.ndarray, np.ndarray]:
        """Convert a position in the image in mm to the coordinates (z, w) of the ventricle."""
        x, y = x - np.float32(self._apex[0]), y - np.float32(self._apex[1])
        sin, cos = np.float32(np.sin(self._tilt)), np.float32(np.cos(self._tilt))
        return x * sin + y * cos - np.float32(now.wall), x * cos - y * sin

    def _tissue_at(self, z: np.ndarray, w: np.ndarray, now: Ventricle) -> np.ndarray:
        z0, w0 = now.material(self._ed, z, w)
        rows, columns = self._tissue.shape
        row = np.clip((z0 + MAP_ABOVE) / MAP_STEP + 0.5, 0, rows - 1).astype(np.intp)
        column = np.clip((w0 + MAP_ASIDE) / MAP_STEP + 0.5, 0, columns - 1).astype(np.intp)
        return self._tissue[row, column]

    def _valve(self, z: np.ndarray, w: np.ndarray, now: Ventricle, fraction: float) -> np.ndarray:
        """Return the amplitude of the mitral leaflets, which are open at ED and closed at ES."""
        valve = np.zeros(z.shape, np.float32)
        near = np.abs(z - now.length) < 25
        z, w = z[near], w[near]
        db = np.full(z.shape, -100.0)
        for side, opening, echo in zip(
            (-1, 1), self._leaflet_opening, self._leaflet_db, strict=True
        ):
            angle = opening * (1 - fraction) + 0.07
            hinge = float((now.left if side < 0 else now.right)[-1])
            along = hinge - side * w  # from the hinge towards the middle
            bow = 1.5 * np.sin(np.pi * np.clip(along / hinge, 0, 1))  # towards the atrium
            height = now.length - np.tan(angle) * along + bow
            distance = (z - height) * np.cos(angle) / 0.7
            leaflet = (along > 0) & (along < hinge * np.cos(angle) * 1.02)
            fade = 8 * np.clip(along / hinge - 0.3, 0, 1)
            np.copyto(db, np.maximum(db, echo - fade - 4.3 * distance**2), where=leaflet)
        valve[near] = ultrasound.amplitude(db)
        return valve


# --- tissue in the coordinates of the ventricle at end-diastole -------------------------------


def _tissue_map(
    rng: np.random.Generator, ed: Ventricle, right_heart: bool, quality: ImagingQuality
) -> np.ndarray:
    """Return scatterers times echogenicity, complex (z, w) in steps of MAP_STEP."""
    grid_z = np.arange(-MAP_ABOVE, ed.length + MAP_BELOW, MAP_STEP, dtype=np.float32)
    grid_w = np.arange(-MAP_ASIDE, MAP_ASIDE, MAP_STEP, dtype=np.float32)
    z, w = np.meshgrid(grid_z, grid_w, indexing="ij")
    coarse, patches, streaks, rough_z, rough_w = (
        ultrasound.smooth_field(rng, z.shape, (scale[0] / MAP_STEP, scale[1] / MAP_STEP))
        for scale in ((18, 25), (6, 6), (2, 10), (3, 3), (4, 2.5))
    )
    z += 1.2 * rough_z  # makes the borders of the tissue rougher than its contours
    w += 1.0 * rough_w
    labels = ed.labels(z, w)
    inner, outer = ed.half_widths(z, w)
    across = np.abs(w)
    below = z > ed.length

    db = rng.uniform(-32, -22) + 8 * coarse + 5 * streaks + 2 * patches
    if right_heart:
        _add_right_heart(rng, db, ed, z, -w - outer)

    # Walls parallel to the beams have weak echoes, and the near field covers the apex.
    lateral = np.where(w < 0, rng.uniform(-5, 3), rng.uniform(-9, 2))
    apical = rng.uniform(-9, 1) * np.clip(1 - 3 * z / ed.length, 0, 1)
    walls = rng.uniform(-19, -12) - quality.loss + lateral * np.clip(2 * z / ed.length, 0, 1)
    walls = walls + apical + 3.5 * patches + 3 * coarse + 1.5 * streaks
    db = np.where(labels == Camus.MYO, walls, db)

    pericardium = rng.uniform(0, 8) + 4 * patches + 3 * coarse  # a line with gaps
    beside = (z > -ed.wall) & (z < ed.length + 5) & (across > inner)
    db += np.where(beside, pericardium * np.exp(-(((across - outer) / 1.8) ** 2)), 0)

    floor = ed.length + ed.atrium_length
    atrial_wall = below & (across < inner + 3) & (z < floor + 3) & (labels != Camus.LA)
    shell = rng.uniform(-28, -17) + 5 * patches + 3 * streaks
    db = np.where(atrial_wall, np.maximum(db, shell), db)

    cavity = labels == Camus.LV
    db[cavity | (labels == Camus.LA)] = -70
    for side in (-1, 1):  # the two hinges of the mitral ring
        hinge = (ed.left if side < 0 else ed.right)[-1] + 1.5
        blob = np.exp(-(((z - ed.length) / 3) ** 2) - ((w - side * hinge) / 3.5) ** 2)
        db += np.where(inner < across, rng.uniform(2, 12) * blob, 0)
    _add_trabeculae(rng, db, ed, z, w, cavity)
    return ultrasound.scatterers(rng, z.shape) * ultrasound.amplitude(db)


def _add_trabeculae(
    rng: np.random.Generator,
    db: np.ndarray,
    ed: Ventricle,
    z: np.ndarray,
    w: np.ndarray,
    cavity: np.ndarray,
) -> None:
    """Add papillary muscles and trabeculae, which are inside the contour and as bright as walls."""
    half_widths = np.minimum(ed.left, ed.right)
    for _ in range(rng.integers(4, 12)):
        station = rng.integers(60, 185)
        side, depth = rng.choice([-1, 1]), rng.uniform(0.62, 1.0)
        at_z = ed.length * (station / 200) ** 2
        at_w = side * half_widths[station] * depth
        size_z, size_w = rng.uniform(1.0, 5.0), rng.uniform(0.7, 2.2)
        echo = rng.uniform(-28, -14)
        near = cavity & (np.abs(z - at_z) < 12) & (np.abs(w - at_w) < 6)
        distance = ((z[near] - at_z) / size_z) ** 2 + ((w[near] - at_w) / size_w) ** 2
        db[near] = np.maximum(db[near], echo - 4 * distance)


def _add_right_heart(
    rng: np.random.Generator, db: np.ndarray, ed: Ventricle, z: np.ndarray, beyond: np.ndarray
) -> None:
    """Add the dark right ventricle and atrium with a free wall.

    Args:
        rng: Random number generator.
        db: Echogenicity in dB, modified in place.
        ed: Ventricle at end-diastole.
        z: Position along the long axis in mm.
        beyond: Distance to the left of the septum in mm.
    """
    width = rng.uniform(14, 30) * np.sqrt(np.clip((z / ed.length - 0.2) / 0.6, 0, 1))
    above = (z > 0.2 * ed.length) & (z < ed.length)
    centre = ed.length + rng.uniform(20, 26)
    atrium = ((z - centre) / 20) ** 2 + ((beyond - 14) / 15) ** 2 < 1
    db[above & (np.abs(beyond - width - 2) < 2.5)] += rng.uniform(2, 8)
    db[(above & (beyond > 0) & (beyond < width)) | atrium] -= rng.uniform(6, 20)


# --- the machine, in the polar grid of the sector ---------------------------------------------


def _gain(
    rng: np.random.Generator, sector: ultrasound.Sector, quality: ImagingQuality
) -> np.ndarray:
    """Return the gain in dB: attenuation, uneven beams, shadows of ribs and lungs, dropouts."""
    angle, reach = sector.polar()
    shape = (angle.size, reach.size)
    gain = -rng.uniform(0.0, 0.1) * (reach - 60)
    gain = gain + 1.5 * ultrasound.smooth_field(rng, shape, (10, 300))
    gain = gain + 2.5 * ultrasound.smooth_field(rng, shape, (25, 60))
    for side in (-1, 1):
        if rng.random() < quality.shadows:
            edge = sector.half_angle * rng.uniform(0.5, 0.95)
            gain = gain - rng.uniform(6, 24) / (1 + np.exp(-(side * angle - edge) / 0.05))
    for _ in range(rng.poisson(2 * quality.shadows)):
        middle = rng.uniform(-0.8, 0.8) * sector.half_angle
        beam = np.exp(-(((angle - middle) / rng.uniform(0.04, 0.1)) ** 2))
        start = rng.uniform(10, 70)
        gain = gain - rng.uniform(4, 13) * beam / (1 + np.exp(-(reach - start) / 5))
    return gain.astype(np.float32)


def _near_field(rng: np.random.Generator, sector: ultrasound.Sector) -> np.ndarray:
    """Return the reverberation near the probe: constant bands across the beams."""
    angle, reach = sector.polar()
    shape = (angle.size, reach.size)
    bands = 4 * ultrasound.smooth_field(rng, shape, (60, 2.5))
    bands = bands + 4 * ultrasound.smooth_field(rng, shape, (15, 8))
    db = rng.uniform(-24, -13) + bands - 4.3 * (reach / rng.uniform(8, 18)) ** 2
    return ultrasound.scatterers(rng, shape) * ultrasound.amplitude(db)


def _haze(
    rng: np.random.Generator, sector: ultrasound.Sector, quality: ImagingQuality
) -> np.ndarray:
    """Return clutter from side lobes and reverberation, densest over apex and mid-ventricle."""
    angle, reach = sector.polar()
    shape = (angle.size, reach.size)
    patches = 3 * ultrasound.smooth_field(rng, shape, (25, 40))
    db = quality.haze + rng.normal(0, 2.5) + patches - ((reach - 20) / rng.uniform(20, 40)) ** 2
    return ultrasound.scatterers(rng, shape) * ultrasound.amplitude(db)
