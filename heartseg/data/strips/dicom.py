"""M-mode strips in ultrasound DICOM files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from heartseg.data.formats.dicom_header import (
    CENTIMETRES,
    M_MODE,
    check_has_pixels,
    get_number,
    open_dicom,
    region_bounds,
)
from heartseg.data.formats.dicom_pixels import gray_frames
from heartseg.data.strips.scrolling import join_frames
from heartseg.errors import InputError, one_line, unreadable

if TYPE_CHECKING:
    from pydicom import Dataset

SECONDS = 4  # Physical Units X Direction (0018,6024), C.8.5.5.1.15


@dataclass(frozen=True)
class MmodeRegion:
    """M-mode region of an image.

    Attributes:
        rows, columns: Part of the image.
        spacing: (mm per row, s per column).
    """

    rows: slice
    columns: slice
    spacing: tuple[float, float]


@dataclass(frozen=True)
class MmodeDicom:
    """M-mode recording of a DICOM file.

    Attributes:
        strips: Strips uint8 (H, W) in the order of time.
        spacing: (mm per row, s per column).
        notes: Unusual properties of the file, as clauses.
    """

    strips: list[np.ndarray]
    spacing: tuple[float, float]
    notes: list[str]


def read_dicom(path: Path) -> MmodeDicom:
    """Read the M-mode strips of a single- or multi-frame ultrasound file.

    Raises:
        InputError: The file cannot be read, or has no calibrated M-mode region. The message has the
            form "path: reason. Remedy."
    """
    try:
        dataset = open_dicom(path)
    except OSError as error:
        raise unreadable(path, error) from None
    except Exception as error:  # pydicom raises errors of many classes if a file is damaged
        raise InputError(
            f"{path}: cannot be read ({one_line(error)}). Copy or export it again."
        ) from None
    try:
        check_has_pixels(dataset)
        region, notes = find_region(dataset)
        joined = join_frames(gray_frames(dataset, region.rows, region.columns, notes))
    except InputError as error:
        raise InputError(f"{path}: {str(error).rstrip('.')}.") from None
    except Exception as error:  # pydicom parses values when they are first accessed
        raise InputError(
            f"{path}: has a damaged header ({one_line(error)}). Copy or export it again."
        ) from None
    return MmodeDicom(joined.strips, region.spacing, notes + joined.notes)


def find_region(dataset: Dataset) -> tuple[MmodeRegion, list[str]]:
    """Find the largest M-mode region with the units centimetres and seconds.

    Regions are identified by their attributes, because their order differs between machines.

    Returns:
        (region, notes).

    Raises:
        InputError: There is no such region, or its scale or place is invalid.
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
        kind = UID(dataset.get("SOPClassUID", "")).name or "unknown"
        what = "no M-mode region with the units cm and s" if found else "no M-mode region"
        raise InputError(
            f"has {what} (SOP class: {kind}). Export the recording with its calibration, or export "
            "the strip as PNG and write its spacing into recordings.csv."
        )
    notes: list[str] = []
    regions = sorted((_bounds(region, dataset, notes) for region in calibrated), key=_area)
    if len(regions) > 1:
        notes.append(f"has {len(regions)} M-mode regions, of which the largest is used")
    return regions[-1], notes


def _bounds(region: Dataset, dataset: Dataset, notes: list[str]) -> MmodeRegion:
    rows, columns = region_bounds(region, dataset, "M-mode region", notes)
    s_per_column = get_number(region, "PhysicalDeltaX")
    mm_per_row = 10 * get_number(region, "PhysicalDeltaY")
    if not (0 < s_per_column < np.inf and 0 < mm_per_row < np.inf):
        raise InputError(
            f"its M-mode region has {mm_per_row:g} mm per row and {s_per_column:g} s per column, "
            "but both must be positive. Export it with its calibration."
        )
    return MmodeRegion(rows, columns, (mm_per_row, s_per_column))


def _area(region: MmodeRegion) -> int:
    rows, columns = region.rows, region.columns
    return (rows.stop - rows.start) * (columns.stop - columns.start)
