"""Geometry of the phantom's left ventricle, its wall and the left atrium in one apical view.

Coordinates are in mm: z along the long axis from the endocardial apex (0) to the mitral plane
(`length`), and w across it, positive to the right of the image.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from heartseg.datasets.camus import Camus

STATIONS = np.linspace(0, 1, 201) ** 2
"""Positions of the half-widths between apex (0) and base (1), which are dense at the round apex."""
TABLE_STEP = 0.05  # mm between the half-widths of the lookup table


@dataclass(frozen=True)
class Ventricle:
    """Ventricle and atrium in one view at one time. Lengths are in mm.

    Attributes:
        length: Endocardial long axis, equal in both views of a patient.
        left, right: Distances of the endocardium from the long axis at STATIONS, each (201,).
        wall: Thickness of the myocardium.
        atrium_length, atrium_width: Size of the left atrium below the mitral plane.
        atrium_lean: Sideways shift of the floor of the atrium.
    """

    length: float
    left: np.ndarray
    right: np.ndarray
    wall: float
    atrium_length: float
    atrium_width: float
    atrium_lean: float

    def blend(self, other: Ventricle, fraction: float) -> Ventricle:
        """Interpolate linearly to `other`, by a fraction from 0 to 1."""
        mix = {
            f.name: (1 - fraction) * getattr(self, f.name) + fraction * getattr(other, f.name)
            for f in fields(self)
        }
        return Ventricle(**mix)

    def half_widths(self, z: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the distances of the inner and outer border from the long axis, on the side of w.

        The inner border is that of the blood pool of ventricle or atrium. The outer border is the
        epicardium, or the wall of the atrium below the mitral plane. Both are 0 if there is none.
        """
        index = ((z + self.wall) / TABLE_STEP + 0.5).astype(np.intp)
        np.clip(index, 0, len(self._borders[0]) // 2 - 1, out=index)
        index *= 2
        index += w >= 0
        inner, outer = self._borders
        return inner[index], outer[index]

    @cached_property
    def _borders(self) -> tuple[np.ndarray, np.ndarray]:
        """Lookup table of inner and outer half-widths over z, left and right alternating."""
        end = self.length + self.atrium_length + 1.0
        z = np.arange(-self.wall - TABLE_STEP, end, TABLE_STEP) + TABLE_STEP
        borders = [(self._inner(z, side), self._outer(z, side)) for side in (-1, 1)]
        (left_in, left_out), (right_in, right_out) = borders
        inner = np.stack([left_in, right_in], axis=-1).astype(np.float32)
        outer = np.stack([left_out, right_out], axis=-1).astype(np.float32)
        return inner.ravel(), outer.ravel()

    def _inner(self, z: np.ndarray, side: int) -> np.ndarray:
        table = self.left if side < 0 else self.right
        ventricle = np.interp(z / self.length, STATIONS, table, left=0.0)
        return np.where(z <= self.length, ventricle, self._atrium(z, side))

    def _atrium(self, z: np.ndarray, side: int) -> np.ndarray:
        """Return the half-width of the egg-shaped atrium, widest at 45 % of its length."""
        q = (z - self.length) / self.atrium_length
        from_middle = np.abs(q - 0.45) / np.where(q < 0.45, 0.62, 0.55)
        half = self.atrium_width / 2 * np.sqrt(np.maximum(1 - from_middle**2.5, 0))
        return np.where(q < 1, np.maximum(half + side * self.atrium_lean * q, 0), 0)

    def _outer(self, z: np.ndarray, side: int) -> np.ndarray:
        table = self.left if side < 0 else self.right
        station = (z + self.wall) / (self.length + self.wall)
        grown = np.interp(station, STATIONS, table, left=0.0) * (1 + self.wall / table.max())
        inner = self._inner(z, side)
        thick = np.where(z < 0, 0, inner + 0.7 * self.wall)
        return np.where(z <= self.length, np.maximum(grown, thick), inner + 0.3 * self.wall)

    def labels(self, z: np.ndarray, w: np.ndarray) -> np.ndarray:
        """Return the labels of the points (z, w), uint8. The myocardium is open at the base."""
        labels = np.full(z.shape, Camus.BACKGROUND, np.uint8)
        floor = self.length + self.atrium_length
        reach = max(half.max() for half in self._borders)
        near = (z >= -self.wall) & (z <= floor) & (np.abs(w) <= reach)
        z, w = z[near], w[near]
        inner, outer = self.half_widths(z, w)
        in_cavity = np.abs(w) <= inner
        here = np.where((z <= self.length) & (np.abs(w) <= outer), Camus.MYO, Camus.BACKGROUND)
        here[(z >= 0) & (z <= self.length) & in_cavity] = Camus.LV
        here[(z > self.length) & in_cavity] = Camus.LA
        labels[near] = here
        return labels

    def material(
        self, reference: Ventricle, z: np.ndarray, w: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the position in `reference` of the tissue that is now at (z, w).

        The outer apex and the floor of the atrium do not move. Cavity, wall and atrium are
        stretched linearly. Outside, the displacement of the epicardium fades over 12 mm.
        """
        now = np.array([-self.wall, 0, self.length, self.length + self.atrium_length])
        then = np.array(
            [-reference.wall, 0, reference.length, reference.length + reference.atrium_length]
        )
        z0 = np.interp(z, now, then) + np.minimum(z - now[0], 0) + np.maximum(z - now[-1], 0)
        inner, outer = self.half_widths(z, w)
        inner0, outer0 = reference.half_widths(z0, w)
        across = np.abs(w)
        in_cavity = inner0 * across / np.maximum(inner, 1e-3)
        stretch = (outer0 - inner0) / np.maximum(outer - inner, 1e-3)
        in_wall = inner0 + (across - inner) * stretch
        outside = across + (outer0 - outer) * np.exp(-np.maximum(across - outer, 0) / 12)
        w0 = np.where(across < inner, in_cavity, np.where(across < outer, in_wall, outside))
        return z0, np.copysign(w0, w)


def volume_ml(two_chamber: Ventricle, four_chamber: Ventricle) -> float:
    """Return the volume of the stack of elliptical disks in mL.

    This is the continuous form of the biplane method of disks (Lang et al., J Am Soc Echocardiogr
    28(1), 2015, table 1): V = pi/4 * L * integral of d2(s) d4(s) ds over s in 0..1, where d2 and d4
    are the diameters in the two views.
    """
    areas = (two_chamber.left + two_chamber.right) * (four_chamber.left + four_chamber.right)
    integral = np.sum(np.diff(STATIONS) * (areas[1:] + areas[:-1]) / 2)
    return float(np.pi / 4 * two_chamber.length * integral / 1000)


def random_profile(rng: np.random.Generator) -> np.ndarray:
    """Draw the half-width of a bullet shape at STATIONS, widest between the middle and the base."""
    widest = rng.uniform(0.55, 0.82)
    roundness = rng.uniform(1.6, 2.4)
    taper = rng.uniform(0.04, 0.22)
    above = 1 - np.clip(1 - STATIONS / widest, 0, 1) ** roundness
    below = np.clip((STATIONS - widest) / (1 - widest), 0, 1)
    return np.sqrt(above) * (1 - taper * below**2)


def random_bulge(rng: np.random.Generator, size: float) -> np.ndarray:
    """Draw a factor near 1 at STATIONS, which is 1 at apex and base."""
    first, second = rng.normal(0, size, 2)
    return 1 + first * np.sin(np.pi * STATIONS) + 0.6 * second * np.sin(2 * np.pi * STATIONS)
