"""Two-dimensional ultrasound images and sequences in DICOM files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from heartseg.data.formats.dicom_header import (
    CENTIMETRES,
    M_MODE,
    TISSUE_2D,
    check_has_pixels,
    get_number,
    open_dicom,
    region_bounds,
)
from heartseg.data.formats.dicom_pixels import gray_frames
from heartseg.data.formats.pixels import Images
from heartseg.data.geometry import (
    SCALE_TOLERANCE,
    Geometry,
    Spacing,
    make_geometry,
    plausible_time_step,
)
from heartseg.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset


def read_dicom_image(path: Path) -> Images:
    """Read the calibrated 2-D region of a file, without the text and scales around it.

    The whole image is read if the file has no regions. `Images.save` writes NIfTI files of the
    whole image, 0 around the region, with the axes of the CAMUS release.

    Raises:
        InputError: The file has no 2-D image. The message has the form "reason. Remedy".
        Exception: The file is damaged. pydicom raises errors of many classes.
    """
    from heartseg.data.formats.nifti import write_maps

    dataset = open_dicom(path)
    check_has_pixels(dataset)
    notes: list[str] = []
    rows, columns, geometry = _find_tissue_region(dataset, notes)
    frames = np.stack(list(gray_frames(dataset, rows, columns, notes)))

    def save(maps: np.ndarray, target: Path) -> None:
        whole = np.zeros((len(maps), dataset.Rows, dataset.Columns), maps.dtype)
        whole[:, rows, columns] = maps
        write_maps(whole, target, geometry)

    return Images(frames, geometry, save, ".nii.gz", tuple(notes), (rows, columns))


def _find_tissue_region(dataset: Dataset, notes: list[str]) -> tuple[slice, slice, Geometry]:
    """Return rows, columns and geometry of the largest 2-D region, or of the whole image."""
    time = plausible_time_step(get_number(dataset, "FrameTime") / 1000)
    shape = (int(dataset.Rows), int(dataset.Columns))
    pixel_spacing = _pixel_spacing(dataset)
    regions = dataset.get("SequenceOfUltrasoundRegions") or []
    formats = [region.get("RegionSpatialFormat") for region in regions]
    if M_MODE in formats:
        raise InputError("is an M-mode recording. Segment it with `heartseg recording`")
    found = [region for region in regions if region.get("RegionSpatialFormat") == TISSUE_2D]
    if regions and not found:
        raise InputError("has no 2-D region. Export the 2-D images")
    if not found:
        problem = "" if pixel_spacing else "has neither a calibrated region nor a Pixel Spacing"
        geometry = make_geometry(pixel_spacing, shape, problem, time_per_frame=time)
        return slice(None), slice(None), geometry
    bounds = [region_bounds(region, dataset, "2-D region", notes) for region in found]
    areas = [(r.stop - r.start) * (c.stop - c.start) for r, c in bounds]
    largest = max(range(len(areas)), key=areas.__getitem__)
    (rows, columns), region = bounds[largest], found[largest]
    units = (region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection"))
    spacing, problem = pixel_spacing, ""
    if units == (CENTIMETRES, CENTIMETRES):
        # The absolute value: some machines count rows upwards and state a negative delta.
        row, column = (10 * abs(get_number(region, f"PhysicalDelta{axis}")) for axis in "YX")
        spacing = (row, column)
        if pixel_spacing and not np.allclose(pixel_spacing, spacing, rtol=SCALE_TOLERANCE):
            notes.append(
                f"has a Pixel Spacing of {pixel_spacing[0]:.4g} x {pixel_spacing[1]:.4g} mm, but "
                f"the {row:.4g} x {column:.4g} mm of its 2-D region are used"
            )
    elif spacing is None:
        problem = "its 2-D region is not calibrated in centimetres, and it has no Pixel Spacing"
    size = (rows.stop - rows.start, columns.stop - columns.start)
    return rows, columns, make_geometry(spacing, size, problem, time_per_frame=time)


def _pixel_spacing(dataset: Dataset) -> Spacing | None:
    stated = dataset.get("PixelSpacing")
    try:
        row, column = (float(step) for step in stated)
    except (TypeError, ValueError):  # absent, empty, or a single number
        return None
    return row, column
