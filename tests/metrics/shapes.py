"""Masks with known volumes, diameters and heart rates."""

from __future__ import annotations

import numpy as np

from heartseg.datasets.camus import Camus

FINE = (0.3, 0.3)
UNEQUAL = (0.31, 0.52)
MM_PER_ROW, S_PER_COLUMN = 0.05, 0.001


def heart(
    length: float,
    half_width: float,
    degrees: float = 0.0,
    spacing: tuple[float, float] = FINE,
    atrium: bool = True,
) -> np.ndarray:
    """A half ellipse (mm) with its base on the atrium, apex up, turned by some degrees.

    As both views of a half ellipsoid it stands for 2/3 * pi * half_width_2ch * half_width_4ch *
    length.
    """
    shape = (round(200 / spacing[0]), round(180 / spacing[1]))
    rows, columns = np.indices(shape)
    y, x = rows * spacing[0] - 110.0, columns * spacing[1] - 90.0  # mm from the base's middle
    angle = np.radians(degrees)
    up = -y * np.cos(angle) + x * np.sin(angle)
    across = x * np.cos(angle) + y * np.sin(angle)
    labels = np.zeros(shape, np.uint8)
    wall = (up / (length + 8)) ** 2 + (across / (half_width + 8)) ** 2 <= 1
    labels[wall & (up >= 0)] = Camus.MYO
    labels[(up >= 0) & ((up / length) ** 2 + (across / half_width) ** 2 <= 1)] = Camus.LV
    if atrium:
        labels[(up < 0) & (up > -30) & (abs(across) <= half_width)] = Camus.LA
    return labels


def strip(
    columns: int, rate: float = 450.0, lvidd: float = 4.0, lvids: float = 2.4, start: float = 0.1
) -> np.ndarray:
    """Mask (200, columns) of a cavity whose diameter (mm) swings between two values."""
    seconds = np.arange(columns) * S_PER_COLUMN
    swing = np.cos(2 * np.pi * (seconds * rate / 60 - start))
    half = ((lvidd + lvids) / 2 + (lvidd - lvids) / 2 * swing) / MM_PER_ROW / 2
    return abs(np.arange(200)[:, None] - 100) <= half
