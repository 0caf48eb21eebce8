"""M-mode strips from ultrasound DICOM files: pixels and geometry, nothing else of the header."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from heartseg.data.formats.dicom import (
    CENTIMETRES,
    M_MODE,
    check_picture,
    gray_frames,
    is_dicom,
    number_of,
    open_dicom,
    region_bounds,
)
from heartseg.data.strips.scrolling import join_frames
from heartseg.errors import InputError, one_line, unreadable

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["MmodeDicom", "is_dicom", "read_dicom"]

SECONDS = 4  # Physical Units X Direction, as CENTIMETRES


@dataclass(frozen=True)
class MmodeRegion:
    """The M-mode part of a picture.

    Attributes:
        rows, columns: of the picture.
        spacing: (mm per row, s per column).
    """

    rows: slice
    columns: slice
    spacing: tuple[float, float]


@dataclass(frozen=True)
class MmodeDicom:
    """A recording: strips uint8 (H, W) in the order of time, (mm per row, s per column), notes."""

    strips: list[np.ndarray]
    spacing: tuple[float, float]
    notes: list[str]


def read_dicom(path: Path) -> MmodeDicom:
    """The M-mode strips of a single- or multi-frame ultrasound file.

    Raises:
        InputError: "path: reason. Remedy."; the file cannot be decoded, or has no calibrated
            M-mode region.
    """
    try:
        dataset = open_dicom(path)
    except OSError as error:
        raise unreadable(path, error) from None
    except Exception as error:  # pydicom raises many kinds on a broken file
        raise InputError(
            f"{path}: cannot be read ({one_line(error)}). Copy or export it again."
        ) from None
    try:
        check_picture(dataset)
        region, notes = find_region(dataset)
        joined = join_frames(gray_frames(dataset, region.rows, region.columns, notes))
    except InputError as error:
        raise InputError(f"{path}: {str(error).rstrip('.')}.") from None
    except Exception as error:  # so does what it raises when a value is first looked at
        raise InputError(
            f"{path}: its header cannot be used ({one_line(error)}). Copy or export it again."
        ) from None
    return MmodeDicom(joined.strips, region.spacing, notes + joined.notes)


def find_region(dataset: Dataset) -> tuple[MmodeRegion, list[str]]:
    """The M-mode region in centimetres over seconds; the largest where there are several.

    Found by what the regions say of themselves: their order differs from machine to machine.

    Raises:
        InputError: there is none, or its numbers make no sense.
    """
    from pydicom.uid import UID

    found = [
        region
        for region in dataset.get("SequenceOfUltrasoundRegions") or []
        if region.get("RegionSpatialFormat") == M_MODE
    ]
    calibrated = [
        region
        for region in found
        if region.get("PhysicalUnitsXDirection") == SECONDS
        and region.get("PhysicalUnitsYDirection") == CENTIMETRES
    ]
    if not calibrated:
        kind = UID(dataset.get("SOPClassUID", "")).name or "of no stated kind"
        what = "an M-mode region, but not in cm over seconds" if found else "no M-mode region"
        raise InputError(
            f"has {what} (it is {kind}). Export the recording with its calibration, or give the "
            "strip as PNG with its spacing in recordings.csv."
        )
    notes: list[str] = []
    regions = sorted((_bounds(region, dataset, notes) for region in calibrated), key=_area)
    if len(regions) > 1:
        notes.append(f"{len(regions)} M-mode regions, the largest is taken")
    return regions[-1], notes


def _bounds(region: Dataset, dataset: Dataset, notes: list[str]) -> MmodeRegion:
    rows, columns = region_bounds(region, dataset, "M-mode region", notes)
    s_per_column = number_of(region, "PhysicalDeltaX")
    mm_per_row = 10 * number_of(region, "PhysicalDeltaY")
    if not (0 < s_per_column < np.inf and 0 < mm_per_row < np.inf):
        raise InputError(
            f"its M-mode region has {mm_per_row:g} mm per row and {s_per_column:g} s per column. "
            "Export it with its calibration."
        )
    return MmodeRegion(rows, columns, (mm_per_row, s_per_column))


def _area(region: MmodeRegion) -> int:
    rows, columns = region.rows, region.columns
    return (rows.stop - rows.start) * (columns.stop - columns.start)
