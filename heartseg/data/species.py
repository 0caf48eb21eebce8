"""What can be expected of a heart, and whether an M-mode strip's scale leaves room for one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Species:
    """What can be expected of a heart.

    Attributes:
        name: of the species.
        rates: slowest and fastest plausible heart rate in beats per minute, anaesthetised or
            awake.
        diameters: plausible LVIDd in mm; another one hints at a wrong spacing.
        volume_unit: of `teichholz_volume`.
        teichholz_mm: millimetres in the unit of length that Teichholz's formula is used with.
    """

    name: str
    rates: tuple[float, float]
    diameters: tuple[float, float]
    volume_unit: str
    teichholz_mm: float


MOUSE = Species("mouse", (200.0, 900.0), (1.5, 7.0), "ul", 1.0)
HUMAN = Species("human", (30.0, 220.0), (25.0, 90.0), "ml", 10.0)
SPECIES = {species.name: species for species in (MOUSE, HUMAN)}

FEWEST_COLUMNS, MOST_COLUMNS = 8.0, 4000.0
"""Of a beat. Contraction and relaxation cannot be told apart in fewer, and no machine writes more:
the real recordings have 80 to 200."""
HIGHEST_STRIP = 8.0
"""Depth of a strip over the largest plausible LVIDd: 56 mm for a mouse, 720 mm for a human. Probes
for mice reach 36 mm, for humans 300 mm; the rest is room for the frame around a strip."""
IMPOSSIBLE = 3.0
"""Factor beyond the plausible diameters from which on the scale is wrong and not the heart ill. A
mistaken unit is a factor of 10 or 1000."""


ODD = 1.5
"""Factor beyond the plausible diameters from which on a scale is doubted."""


@dataclass(frozen=True)
class Scale:
    """The scale of an M-mode strip and who says so.

    Attributes:
        mm_per_row, s_per_column: the scale.
        sources: where each of them comes from and how to name it in a message, for example
            "recordings.csv: mm_per_row of strip".
    """

    mm_per_row: float
    s_per_column: float
    sources: tuple[str, ...]

    @property
    def spacing(self) -> tuple[float, float]:
        """(mm per row, s per column)."""
        return self.mm_per_row, self.s_per_column


def check_scale(
    scale: Scale, shape: tuple[int, int], diameter: float | None, species: Species
) -> list[str]:
    """Name what is impossible about a scale, [] if a heart of the species fits.

    A beat must take a plausible number of columns, the strip's rows must have room for an LV, and
    the LV itself, if it is drawn, must have the size of one.

    Args:
        scale: of the strip.
        shape: (H, W) of the strip or window.
        diameter: largest height of the LV in rows; None if it is not known.
        species: whose heart.

    Returns:
        Sentences that name the number, its source, what follows from it, and a remedy.
    """
    problems = []
    rows, columns = shape
    mm, s = scale.spacing
    slow, fast = (60.0 / rate / s for rate in species.rates)  # columns per beat
    if not _beat_fits(s, species):
        problems.append(
            f"{scale.sources[1]} is {s:g} s per column: the {columns} columns would last "
            f"{columns * s:.4g} s, and a beat of a {species.name} ({species.rates[0]:g} to "
            f"{species.rates[1]:g}/min) would take {fast:.2g} to {slow:.2g} columns. "
            + _remedy(s, "seconds", {"milliseconds": 1e-3, "microseconds": 1e-6}, species,
                      _beat_fits)
        )  # fmt: skip
    units = {"centimetres": 10.0, "micrometres": 1e-3, "metres": 1000.0}
    least, most = species.diameters
    if not _depth_fits(rows * mm, species):
        problems.append(
            f"{scale.sources[0]} is {mm:g} mm per row: the {rows} rows would be {rows * mm:.4g} "
            f"mm, and a strip with the LV of a {species.name} has {least:g} to "
            f"{HIGHEST_STRIP * most:g} mm. "
            + _remedy(mm, "millimetres", units, species, lambda v, of: _depth_fits(rows * v, of))
        )
    elif diameter is not None and not _wall_fits(diameter * mm, species):
        problems.append(
            f"{scale.sources[0]} is {mm:g} mm per row: the LV would be {diameter * mm:.3g} mm "
            f"wide, and that of a {species.name} has {least:g} to {most:g} mm. "
            + _remedy(mm, "millimetres", units, species, lambda v, of: _wall_fits(diameter * v, of))
        )
    return problems


def odd_size(scale: Scale, diameter: float | None, species: Species) -> str:
    """A note on an LV that is possible, but small or large for its species; "" if it is not.

    Args:
        scale, diameter, species: as of `check_scale`.
    """
    least, most = species.diameters
    if diameter is None or least / ODD <= diameter * scale.mm_per_row <= ODD * most:
        return ""
    return (
        f"{scale.sources[0]} is {scale.mm_per_row:g} mm per row: the LV would be "
        f"{diameter * scale.mm_per_row:.3g} mm wide, which is rare in a {species.name} "
        f"({least:g} to {most:g} mm). Check the scale"
    )


def tallest(inside: np.ndarray) -> float | None:
    """Height in rows of the LV where it is high, None for an empty mask.

    The 90th percentile over the columns of a mask, bool (H, W): near end-diastole, and robust
    against single columns.
    """
    heights = inside.sum(axis=0)
    return float(np.percentile(heights[heights > 0], 90)) if heights.any() else None


def likely_species(masks: Iterable[np.ndarray], mm_per_row: Iterable[float]) -> Species:
    """The species that LVs have the size of, for data that do not say whose hearts they are.

    The plausible diameters of the species are far apart, so that the nearest is the right one even
    for hearts that are ill. Without an LV it is the mouse.

    Args:
        masks: of the LV, bool (H, W).
        mm_per_row: of each of them.
    """
    pairs = zip(masks, mm_per_row, strict=True)
    heights = [tall * mm for mask, mm in pairs if (tall := tallest(mask)) is not None]
    if not heights:
        return MOUSE
    typical = float(np.median(heights))

    def factor(species: Species) -> float:  # by which it is off the middle of the plausible ones
        return abs(math.log(typical / math.sqrt(math.prod(species.diameters))))

    return min(SPECIES.values(), key=factor)


def _beat_fits(s_per_column: float, species: Species) -> bool:
    slow, fast = (60.0 / rate / s_per_column for rate in species.rates)
    return slow >= FEWEST_COLUMNS and fast <= MOST_COLUMNS


def _depth_fits(depth_mm: float, species: Species) -> bool:
    least, most = species.diameters
    return least <= depth_mm <= HIGHEST_STRIP * most


def _wall_fits(diameter_mm: float, species: Species) -> bool:
    least, most = species.diameters
    return least / IMPOSSIBLE <= diameter_mm <= IMPOSSIBLE * most


def _remedy(
    value: float,
    unit: str,
    mistaken: dict[str, float],
    species: Species,
    fits: Callable[[float, Species], bool],
) -> str:
    """What to do about a number: the mistake that explains it, if there is one."""
    for name, factor in mistaken.items():
        if fits(value * factor, species):
            return (
                f"It must be in {unit}; if it was given in {name}, {value * factor:.6g} is right."
            )
    for other in SPECIES.values():
        if fits(value, other):
            return (
                f"Correct it, or say that the heart is a {other.name}'s (datasets.*.species in "
                "params.yaml)."
            )
    return f"Give it in {unit}."
