"""Checks of the pixel size of a patient's apical views by the size of the left ventricle.

A wrong pixel size does not affect Dice and EF, but volumes by its third power. Label maps are
(H, W) with the values of `heartseg.datasets.camus.Camus`; spacing is (row, column) in mm.
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
"""Possible long axis, area and volume of a human LV, from the end-systole of a preterm newborn to
the end-diastole of an extremely dilated adult LV. Term newborns have an ESV of 14.5 mL/m2 at 0.23
m2, which is 3.3 mL (JCMR 25:26, 2023); preterm newborns of 0.6 kg about a fifth of it (LV
diameters: Abushaban et al., Ann Pediatr Cardiol 7, 2014). Adults have an EDV of up to 150 mL (Lang
et al., JASE 28, 2015); the maxima of the CAMUS release are 335 mL, 107 mm and 6,500 mm2. The limits
are well outside these values. They reject no patient, but they reject a scale that is 3 times too
large or 10 times too small."""
VIEWS_FACTOR = 1.4
"""Maximum ratio of the scales of two views, which may have different depths; 1.33 in CAMUS."""
LENGTH_FACTOR = 1.5
"""Maximum ratio of the lengths of the same long axis in two views; 1.36 in CAMUS."""
PHASES_FACTOR = 1.02
"""Maximum ratio of the scales of ED and ES, which are frames of the same loop."""

Key = tuple[str, str]
"""(view, phase)."""


@dataclass(frozen=True)
class LVSize:
    """Size of the LV and of the image.

    Attributes:
        spacing: (row, column) in mm.
        sides: Height and width of the image in mm.
        length: Length of the LV's long axis in mm; None if it cannot be measured.
        area: Area of the LV in mm2.
    """

    spacing: Spacing
    sides: tuple[float, float]
    length: float | None = None
    area: float = 0.0


def measure_lv(labels: np.ndarray, spacing: Spacing) -> LVSize:
    """Measure the LV in a label map (H, W) with spacing (row, column) in mm."""
    height, width = labels.shape
    sides = (height * spacing[0], width * spacing[1])
    try:
        ventricle = left_ventricle(labels, spacing)
    except ValueError:  # there is no LV, or it is too small to have a long axis
        area = float(np.count_nonzero(labels == Camus.LV) * spacing[0] * spacing[1])
        return LVSize(spacing, sides, area=area)
    return LVSize(spacing, sides, ventricle.length, ventricle.area)


def impossible_size(lv: LVSize) -> str:
    """Describe an impossible size of a human LV, such as "an LV 254 mm long"; "" if possible."""
    if not lv.area:
        return ""  # an absent LV is reported elsewhere
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
    """Return whether a volume in mL is possible for a human LV; True for NaN."""
    return np.isnan(volume) or VOLUME_ML[0] <= volume <= VOLUME_ML[1]


def swapped_phases(images: Mapping[Key, LVSize]) -> str:
    """Describe a view of a patient in which the LV is larger at ES than at ED; "" if there is none.

    There is no such view in 300 patients of the CAMUS release.
    """
    for (view, phase), one in sorted(images.items()):
        other = images.get((view, "ES"))
        if phase == "ED" and other and 0 < one.area < other.area:
            return f"the LV of {view} has {one.area:.4g} mm2 at ED and {other.area:.4g} at ES"
    return ""


def scale_disagreement(images: Mapping[Key, LVSize]) -> str:
    """Describe two images of a patient with inconsistent scales; "" if all are consistent.

    Different pixel sizes alone are no error, because an image may be stored with fewer, larger
    pixels. The size of the whole image must differ by the same factor.
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
