"""Can the scale of a patient's apical views be right? The size of the left ventricle tells.

A wrong pixel size goes unnoticed in Dice and in EF, but multiplies volumes by its third power.
Label maps are (H, W) with the values of `heartseg.datasets.camus.Camus`; spacing is (row, column)
in mm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from heartseg.datasets.camus import Camus
from heartseg.metrics import Spacing
from heartseg.metrics.chamber import left_ventricle
from heartseg.metrics.ejection import area_length

LENGTH_MM = (12.0, 150.0)
AREA_MM2 = (40.0, 12_000.0)
VOLUME_ML = (0.5, 800.0)
"""Long axis, area and volume that a human LV can have, from a preterm newborn's end-systole to an
extremely dilated adult's end-diastole. Term newborns have an ESV of 14.5 mL/m2 at 0.23 m2, which is
3.3 mL (JCMR 25:26, 2023); preterm ones of 0.6 kg about a fifth (their LV diameters: Abushaban et
al., Ann Pediatr Cardiol 7, 2014). Adults have an EDV of up to 150 mL (Lang et al., JASE 28, 2015);
in the CAMUS release 335 mL, 107 mm and 6,500 mm2 are the largest. The limits are well outside of
all of these, so that no patient is called impossible; a scale that is wrong by a factor of 3
upwards or of 10 downwards is."""
VIEWS_FACTOR = 1.4
"""Views may be recorded at different depths: by a factor of up to 1.33 in the CAMUS release."""
LENGTH_FACTOR = 1.5
"""Both views show the same long axis: its lengths differ by a factor of up to 1.36 there."""
PHASES_FACTOR = 1.02
"""ED and ES are frames of one loop, with one scale."""

Key = tuple[str, str]
"""View and phase."""


@dataclass(frozen=True)
class Measured:
    """What of a label map tells whether its scale can be right.

    Attributes:
        spacing: (row, column) in mm.
        sides: height and width of the image in mm.
        length: of the LV's long axis in mm; None if there is no LV to measure.
        area: of the LV in mm2.
    """

    spacing: Spacing
    sides: tuple[float, float]
    length: float | None = None
    area: float = 0.0


def measured(labels: np.ndarray, spacing: Spacing) -> Measured:
    """Measure a label map (H, W) of spacing (row, column) in mm."""
    height, width = labels.shape
    sides = (height * spacing[0], width * spacing[1])
    try:
        ventricle = left_ventricle(labels, spacing)
    except ValueError:  # none, or one too small to have a long axis
        area = float(np.count_nonzero(labels == Camus.LV) * spacing[0] * spacing[1])
        return Measured(spacing, sides, area=area)
    return Measured(spacing, sides, ventricle.length, ventricle.area)


def impossible_size(lv: Measured) -> str:
    """Why this is no human LV, for example "an LV 254 mm long"; "" if it can be one."""
    if not lv.area:
        return ""  # an absent LV is another fault
    if lv.length is None or not LENGTH_MM[0] <= lv.length <= LENGTH_MM[1]:
        length = "too short to measure" if lv.length is None else f"{lv.length:.3g} mm long"
        return f"an LV {length}"
    if not AREA_MM2[0] <= lv.area <= AREA_MM2[1]:
        return f"an LV of {lv.area:.4g} mm2"
    volume = area_length(lv.area, lv.area, lv.length)
    if not possible_volume(volume):
        return f"an LV of {volume:.3g} mL (area-length)"
    return ""


def possible_volume(volume: float) -> bool:
    """Whether a human LV can hold so many mL; also True for NaN, which nobody has measured."""
    return np.isnan(volume) or VOLUME_ML[0] <= volume <= VOLUME_ML[1]


def swapped_phases(images: Mapping[Key, Measured]) -> str:
    """In which view of a patient the LV grows from ED to ES, and how; "" if in none.

    In none of the 300 patients of the CAMUS release that were looked at it does.
    """
    for (view, phase), one in sorted(images.items()):
        other = images.get((view, "ES"))
        if phase == "ED" and other and 0 < one.area < other.area:
            return f"the LV of {view} has {one.area:.4g} mm2 at ED and {other.area:.4g} at ES"
    return ""


def disagreement(images: Mapping[Key, Measured]) -> str:
    """Which images of a patient cannot have the same scale, and why; "" if all can.

    A pixel's size alone says nothing: an image may be stored with fewer, larger pixels. So it has
    to differ together with the size of the whole image.
    """
    found = sorted(images.items())
    for number, ((view, phase), one) in enumerate(found):
        for (other_view, other_phase), other in found[number + 1 :]:
            names = f"{view} {phase} and {other_view} {other_phase}"
            factor = PHASES_FACTOR if view == other_view else VIEWS_FACTOR
            for axis, name in enumerate(("high", "wide")):
                ratios = (one.spacing[axis] / other.spacing[axis],
                          one.sides[axis] / other.sides[axis])  # fmt: skip
                if min(ratios) > factor or max(ratios) < 1 / factor:
                    steps = f"{one.spacing[axis]:.4g} and {other.spacing[axis]:.4g} mm"
                    return f"the pixels of {names} are {steps} {name}"
            if view != other_view and phase == other_phase and one.length and other.length:
                ratio = max(one.length, other.length) / min(one.length, other.length)
                if ratio > LENGTH_FACTOR:
                    return f"the LV of {names} is {one.length:.3g} and {other.length:.3g} mm long"
    return ""
