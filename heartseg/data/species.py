"""Plausible sizes and rates of hearts, and checks of the scale of M-mode strips against them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Species:
    """Plausible values of the hearts of a species.

    Attributes:
        name: Name of the species.
        rates: Slowest and fastest plausible heart rate in beats per minute, anaesthetised or
            awake.
        diameters: Smallest and largest plausible LVIDd in mm.
        volume_unit: Unit of `teichholz_volume`.
        teichholz_mm: Unit of length in Teichholz's formula, in millimetres.
    """

    name: str
    rates: tuple[float, float]
    diameters: tuple[float, float]
    volume_unit: str
    teichholz_mm: float


MOUSE = Species("mouse", (200.0, 900.0), (1.5, 7.0), "ul", 1.0)
HUMAN = Species("human", (30.0, 220.0), (25.0, 90.0), "ml", 10.0)
SPECIES = {species.name: species for species in (MOUSE, HUMAN)}

MIN_BEAT_COLUMNS, MAX_BEAT_COLUMNS = 8.0, 4000.0
"""Smallest and largest plausible number of columns of a beat. Fewer cannot show contraction and
relaxation, and no machine writes more. Real recordings have 80 to 200."""
MAX_DEPTH_RATIO = 8.0
"""Largest ratio of the depth of a strip to the largest plausible LVIDd: 56 mm for a mouse, 720 mm
for a human. Probes for mice reach 36 mm and those for humans 300 mm. The rest allows for a frame
around the strip."""
IMPOSSIBLE_FACTOR = 3.0
"""Factor beyond the plausible diameters from which the scale must be wrong. Diseased hearts are
within it, and a wrong unit is a factor of 10 or 1000."""
UNUSUAL_FACTOR = 1.5
"""Factor beyond the plausible diameters from which a note on the scale is given."""


@dataclass(frozen=True)
class Scale:
    """Scale of an M-mode strip and its source.

    Attributes:
        mm_per_row, s_per_column: The scale.
        sources: Source of each of them as text for a message, for example "recordings.csv:
            mm_per_row of strip".
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
    """Check that a heart of a species can have the scale of a strip.

    A beat must have a plausible number of columns, the strip must have a plausible depth, and the
    LV must have a plausible diameter if it is known.

    Args:
        scale: Scale of the strip.
        shape: (H, W) of the strip or window.
        diameter: Largest height of the LV in rows; None if it is unknown.
        species: Species of the heart.

    Returns:
        Problems, each with the number, its source, its consequence, and a remedy. The list is empty
        if the scale is possible.
    """
    problems = []
    rows, columns = shape
    mm, s = scale.spacing
    slow, fast = (60.0 / rate / s for rate in species.rates)  # columns per beat
    if not _beat_fits(s, species):
        problems.append(
            f"{scale.sources[1]} is {s:g} s per column, so the {columns} columns would last "
            f"{columns * s:.4g} s, and a heart beat of a {species.name} ({species.rates[0]:g} to "
            f"{species.rates[1]:g}/min) would have {fast:.2g} to {slow:.2g} columns. "
            + _remedy(s, "seconds", {"milliseconds": 1e-3, "microseconds": 1e-6}, species,
                      _beat_fits)
        )  # fmt: skip
    units = {"centimetres": 10.0, "micrometres": 1e-3, "metres": 1000.0}
    least, most = species.diameters
    if not _depth_fits(rows * mm, species):
        problems.append(
            f"{scale.sources[0]} is {mm:g} mm per row, so the {rows} rows would be "
            f"{rows * mm:.4g} mm, but a strip with the LV of a {species.name} has {least:g} to "
            f"{MAX_DEPTH_RATIO * most:g} mm. "
            + _remedy(mm, "millimetres", units, species, lambda v, of: _depth_fits(rows * v, of))
        )
    elif diameter is not None and not _diameter_fits(diameter * mm, species):
        problems.append(
            f"{scale.sources[0]} is {mm:g} mm per row, so the LV would have a diameter of "
            f"{diameter * mm:.3g} mm, but that of a {species.name} has {least:g} to {most:g} mm. "
            + _remedy(
                mm, "millimetres", units, species, lambda v, of: _diameter_fits(diameter * v, of)
            )
        )
    return problems


def describe_unusual_size(scale: Scale, diameter: float | None, species: Species) -> str:
    """Return a note on an LV that is possible, but small or large for its species, or "".

    Args:
        scale, diameter, species: See `check_scale`.
    """
    if diameter is None:
        return ""
    least, most = species.diameters
    diameter_mm = diameter * scale.mm_per_row
    if least / UNUSUAL_FACTOR <= diameter_mm <= UNUSUAL_FACTOR * most:
        return ""
    return (
        f"{scale.sources[0]} is {scale.mm_per_row:g} mm per row, so the LV would have a diameter "
        f"of {diameter_mm:.3g} mm, which is unusual for a {species.name} ({least:g} to {most:g} "
        "mm). Check the scale"
    )


def lv_height(inside: np.ndarray) -> float | None:
    """Return the height of the LV near end-diastole in rows, or None for an empty mask.

    It is the 90th percentile over the columns, which single columns do not change.

    Args:
        inside: Mask of the LV, bool (H, W).
    """
    heights = inside.sum(axis=0)
    return float(np.percentile(heights[heights > 0], 90)) if heights.any() else None


def likely_species(masks: Iterable[np.ndarray], mm_per_row: Iterable[float]) -> Species:
    """Guess the species from the size of LVs, for data that do not state it.

    The plausible diameters of the species differ so much that the nearest species is right even for
    diseased hearts. If no mask contains an LV, the species is the mouse.

    Args:
        masks: Masks of the LV, bool (H, W).
        mm_per_row: Scale of each mask.
    """
    pairs = zip(masks, mm_per_row, strict=True)
    heights = [height * mm for mask, mm in pairs if (height := lv_height(mask)) is not None]
    if not heights:
        return MOUSE
    typical = float(np.median(heights))

    def factor(species: Species) -> float:  # log ratio to the middle of the plausible diameters
        return abs(math.log(typical / math.sqrt(math.prod(species.diameters))))

    return min(SPECIES.values(), key=factor)


def _beat_fits(s_per_column: float, species: Species) -> bool:
    slow, fast = (60.0 / rate / s_per_column for rate in species.rates)
    return slow >= MIN_BEAT_COLUMNS and fast <= MAX_BEAT_COLUMNS


def _depth_fits(depth_mm: float, species: Species) -> bool:
    least, most = species.diameters
    return least <= depth_mm <= MAX_DEPTH_RATIO * most


def _diameter_fits(diameter_mm: float, species: Species) -> bool:
    least, most = species.diameters
    return least / IMPOSSIBLE_FACTOR <= diameter_mm <= IMPOSSIBLE_FACTOR * most


def _remedy(
    value: float,
    unit: str,
    mistaken: dict[str, float],
    species: Species,
    fits: Callable[[float, Species], bool],
) -> str:
    """Return what to do about a number, with the mistake that explains it if there is one.

    Args:
        value: The number.
        unit: Unit that it should have.
        mistaken: Other units that it may have, and their sizes in `unit`.
        species: Species of the heart.
        fits: Function that tells whether a value is possible for a species.
    """
    for name, factor in mistaken.items():
        if fits(value * factor, species):
            return f"It must be in {unit}. If it is in {name}, write {value * factor:.6g}."
    for other in SPECIES.values():
        if fits(value, other):
            return (
                f"Correct it, or set the species to {other.name} (datasets.*.species in "
                "params.yaml)."
            )
    return f"Write it in {unit}."
