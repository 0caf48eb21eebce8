"""Ultrasound image formation: scatterers, point spread function, sector and log compression.

Speckle is the envelope of many unresolved scatterers. They are modelled as complex Gaussian noise,
scaled by the echogenicity of the tissue and blurred by the point spread function. The magnitude is
Rayleigh distributed (Wagner et al., IEEE Trans. Sonics Ultrason. 30(3), 1983, section II).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage


def scatterers(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Draw complex Gaussian white noise of unit power, complex64 of the given shape."""
    parts = rng.standard_normal((2, *shape), dtype=np.float32)
    return (parts[0] + 1j * parts[1]) * np.float32(np.sqrt(0.5))


def smooth_field(
    rng: np.random.Generator, shape: tuple[int, int], scale: tuple[float, float]
) -> np.ndarray:
    """Draw a random field of zero mean and unit variance that varies over `scale` pixels per axis.

    A coarse grid of normal numbers is interpolated by Gaussians.

    Returns:
        float32 of the given shape.
    """
    rows, columns = (_spread(n, s) for n, s in zip(shape, scale, strict=True))
    coarse = rng.standard_normal((rows.shape[1], columns.shape[1]), dtype=np.float32)
    return rows @ coarse @ columns.T


def _spread(size: int, scale: float) -> np.ndarray:
    """Return a matrix (size, knots) of Gaussians at a distance of `scale`, with rows of norm 1."""
    knots = np.arange(-2, int(size / scale) + 4)
    weights = np.exp(-0.5 * (np.arange(size)[:, None] / scale - knots[None, :]) ** 2)
    return (weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32)


def envelope(field: np.ndarray, blur: tuple[float, float]) -> np.ndarray:
    """Return the magnitude of scatterers blurred by a Gaussian point spread function.

    Args:
        field: Scatterers, complex (rows, columns).
        blur: Standard deviation per axis in pixels. White noise keeps its power if it is at least
            about 0.6.
    """
    seen = np.abs(ndimage.gaussian_filter(field, blur, mode="nearest", truncate=3.0))
    return seen * np.sqrt(4 * np.pi * blur[0] * blur[1])


def decibel(amplitude: np.ndarray) -> np.ndarray:
    """Convert an amplitude to dB, with a floor at -100 dB."""
    return 20 * np.log10(np.maximum(amplitude, 1e-5))


def amplitude(db: np.ndarray | float) -> np.ndarray:
    """Convert dB to an amplitude, the inverse of `decibel`."""
    return np.power(np.float32(10), np.asarray(db, np.float32) / 20)


def compress(db: np.ndarray, white: float, dynamic_range: float, gamma: float) -> np.ndarray:
    """Compress dB to gray values, float32.

    Args:
        db: Echoes in dB.
        white: dB of gray value 255.
        dynamic_range: dB between gray values 0 and 255.
        gamma: Exponent of the gray values.
    """
    return 255 * np.clip((db - white) / dynamic_range + 1, 0, 1) ** np.float32(gamma)


@dataclass(frozen=True)
class Sector:
    """Field of view of a phased array. Its apex is at the middle of the upper edge of the image.

    Attributes:
        width, height: Size of the image in pixels.
        spacing: (lateral, depth) in mm.
        half_angle: Angle between the middle and the outermost beam in radians.
        beams, samples: Size of the polar grid in which the echoes are formed.
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
        """Return lateral position and depth of the pixel centres in mm, each (width, height)."""
        lateral = (np.arange(self.width, dtype=np.float32) + 0.5 - self.width / 2) * self.spacing[0]
        depth = (np.arange(self.height, dtype=np.float32) + 0.5) * self.spacing[1]
        x, y = np.meshgrid(lateral, depth, indexing="ij")
        return x, y

    def polar(self) -> tuple[np.ndarray, np.ndarray]:
        """Return angle (beams, 1) in radians and range (1, samples) in mm of the polar grid."""
        angle = np.linspace(-self.half_angle, self.half_angle, self.beams, dtype=np.float32)
        reach = np.linspace(0, self.depth, self.samples, dtype=np.float32)
        return angle[:, None], reach[None, :]

    def scan_convert(self, polar: np.ndarray) -> np.ndarray:
        """Convert echoes (beams, samples) to an image uint8 (width, height), black outside."""
        inside, places = self._inside
        image = np.zeros(inside.shape, np.uint8)
        values = ndimage.map_coordinates(polar, places, order=1, mode="nearest")
        image[inside] = np.clip(np.rint(values), 0, 255)
        return image

    @cached_property
    def _inside(self) -> tuple[np.ndarray, np.ndarray]:
        """Pixels inside the sector, bool (width, height), and their polar positions (2, n)."""
        x, y = self.pixels()
        reach, angle = np.hypot(x, y), np.arctan2(x, y)
        inside = (reach <= self.depth) & (np.abs(angle) <= self.half_angle)
        beam = (angle[inside] / self.half_angle + 1) / 2 * (self.beams - 1)
        return inside, np.stack([beam, reach[inside] / self.depth * (self.samples - 1)])
