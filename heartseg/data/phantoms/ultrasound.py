"""How an echo image comes about: scatterers, point spread function, sector, log compression.

Speckle is the envelope of many unresolved scatterers, modelled as complex Gaussian noise that
is scaled by the tissue's echogenicity and blurred by the point spread function; its magnitude
is Rayleigh distributed (Wagner et al., IEEE Trans. Sonics Ultrason. 30(3), 1983, section II).
Everything is seeded, so the same generator gives the same image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage


def scatterers(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Complex Gaussian white noise of unit power, complex64 of the given shape."""
    parts = rng.standard_normal((2, *shape), dtype=np.float32)
    return (parts[0] + 1j * parts[1]) * np.float32(np.sqrt(0.5))


def smooth_field(
    rng: np.random.Generator, shape: tuple[int, int], scale: tuple[float, float]
) -> np.ndarray:
    """Random field of zero mean and unit variance that varies over `scale` pixels per axis.

    A coarse grid of normal numbers spread by Gaussians: float32 of the given shape.
    """
    rows, columns = (_spread(n, s) for n, s in zip(shape, scale, strict=True))
    coarse = rng.standard_normal((rows.shape[1], columns.shape[1]), dtype=np.float32)
    return rows @ coarse @ columns.T


def _spread(size: int, scale: float) -> np.ndarray:
    """Matrix (size, knots) of Gaussians `scale` apart, each row of unit norm."""
    knots = np.arange(-2, int(size / scale) + 4)
    weights = np.exp(-0.5 * (np.arange(size)[:, None] / scale - knots[None, :]) ** 2)
    return (weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32)


def envelope(field: np.ndarray, blur: tuple[float, float]) -> np.ndarray:
    """Magnitude of the scatterers seen through a Gaussian point spread function.

    Args:
        field: complex (rows, columns).
        blur: standard deviation per axis in pixels, about 0.6 or more; white noise then keeps its
            power.
    """
    seen = np.abs(ndimage.gaussian_filter(field, blur, mode="nearest", truncate=3.0))
    return seen * np.sqrt(4 * np.pi * blur[0] * blur[1])


def decibel(amplitude: np.ndarray) -> np.ndarray:
    """Amplitude in dB, with a floor at -100 dB."""
    return 20 * np.log10(np.maximum(amplitude, 1e-5))


def amplitude(db: np.ndarray | float) -> np.ndarray:
    """The inverse of `decibel`."""
    return np.power(np.float32(10), np.asarray(db, np.float32) / 20)


def compress(db: np.ndarray, white: float, dynamic_range: float, gamma: float) -> np.ndarray:
    """Log compression: `white` dB becomes 255, `dynamic_range` dB below it 0; float32."""
    return 255 * np.clip((db - white) / dynamic_range + 1, 0, 1) ** np.float32(gamma)


@dataclass(frozen=True)
class Sector:
    """A phased array's field of view: apex at the middle of the upper edge of the image.

    Attributes:
        width, height: size of the image in pixels.
        spacing: (lateral, depth) in mm.
        half_angle: between the middle beam and the outermost one, in radians.
        beams, samples: size of the polar grid in which the echoes are formed.
    """

    width: int
    height: int
    spacing: tuple[float, float]
    half_angle: float
    beams: int
    samples: int

    @property
    def depth(self) -> float:
        """Length of a beam in mm."""
        return self.height * self.spacing[1]

    def pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """Lateral position and depth of every pixel's middle in mm, each (width, height)."""
        lateral = (np.arange(self.width, dtype=np.float32) + 0.5 - self.width / 2) * self.spacing[0]
        depth = (np.arange(self.height, dtype=np.float32) + 0.5) * self.spacing[1]
        x, y = np.meshgrid(lateral, depth, indexing="ij")
        return x, y

    def polar(self) -> tuple[np.ndarray, np.ndarray]:
        """Angle (beams, 1) in radians and range (1, samples) in mm of the polar grid."""
        angle = np.linspace(-self.half_angle, self.half_angle, self.beams, dtype=np.float32)
        reach = np.linspace(0, self.depth, self.samples, dtype=np.float32)
        return angle[:, None], reach[None, :]

    def scan_convert(self, polar: np.ndarray) -> np.ndarray:
        """Echoes (beams, samples) as a uint8 image (width, height), black outside the sector."""
        inside, places = self._inside
        image = np.zeros(inside.shape, np.uint8)
        values = ndimage.map_coordinates(polar, places, order=1, mode="nearest")
        image[inside] = np.clip(np.rint(values), 0, 255)
        return image

    @cached_property
    def _inside(self) -> tuple[np.ndarray, np.ndarray]:
        """Which pixels (width, height) see anything, and their places (2, n) in the polar grid."""
        x, y = self.pixels()
        reach, angle = np.hypot(x, y), np.arctan2(x, y)
        inside = (reach <= self.depth) & (np.abs(angle) <= self.half_angle)
        beam = (angle[inside] / self.half_angle + 1) / 2 * (self.beams - 1)
        return inside, np.stack([beam, reach[inside] / self.depth * (self.samples - 1)])
