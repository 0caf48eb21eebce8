"""Ultrasound DICOM files of real images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom

TISSUE, M_MODE = 1, 2
CENTIMETRES, SECONDS = 3, 4


def write_dicom(
    path: Path,
    pixels: np.ndarray,
    region: tuple[int, int, int, int] | None = None,
    mm: float = 0.308,
    seconds: float | None = None,
    **tags: Any,
) -> None:
    """An ultrasound file of a gray picture.

    Args:
        path: of the file.
        pixels: uint8 or uint16 (H, W).
        region: first and last column, first and last row of its region, if there is one.
        mm: per row of the region, and per column of a 2-D one.
        seconds: per column of an M-mode region; without it, the region is a 2-D one.
        tags: further elements.
    """
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = pydicom.uid.UltrasoundImageStorage
    dataset.SOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[path.name])
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.PixelRepresentation = 0
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    if region is not None:
        item = pydicom.Dataset()
        item.RegionSpatialFormat = TISSUE if seconds is None else M_MODE
        item.RegionDataType, item.RegionFlags = 1, 0
        for name, place in zip(("MinX0", "MaxX1", "MinY0", "MaxY1"), region, strict=True):
            setattr(item, f"RegionLocation{name}", place)
        item.PhysicalUnitsXDirection = CENTIMETRES if seconds is None else SECONDS
        item.PhysicalUnitsYDirection = CENTIMETRES
        item.PhysicalDeltaX = mm / 10 if seconds is None else seconds
        item.PhysicalDeltaY = mm / 10
        dataset.SequenceOfUltrasoundRegions = [item]
    for key, value in tags.items():
        setattr(dataset, key, value)
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path, enforce_file_format=True)
