"""Phantoms of whole M-mode recordings with annotations.

A recording is a long strip of one animal, either a multi-frame DICOM file whose frames scroll over
the strip, or a PNG. The files beside it contain the wall traces, the animal and the quality labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image

from heartseg.data.phantoms import mark_as_phantom
from heartseg.data.phantoms.strip import QUALITY, form_strip, make_motion

if TYPE_CHECKING:
    from pydicom import Dataset

ROWS, COLUMNS = 240, 1500
FRAME, STEP = 400, 110  # columns of a frame, and columns from one frame to the next
MM_PER_ROW, S_PER_COLUMN = 0.04, 0.002
BEAT = (0.1, 0.15)  # s
POINT_EVERY = 6  # columns between the points of a trace
ANIMALS = ("mouse1", "mouse1", "mouse2")  # of the recordings


@dataclass(frozen=True)
class PhantomRecording:
    """A strip uint8 (ROWS, COLUMNS) with the true traces (COLUMNS,) in rows."""

    strip: np.ndarray
    upper: np.ndarray
    lower: np.ndarray


def make_recording(seed: int, number: int) -> PhantomRecording:
    """Form a recording with 400 to 600 beats per minute, determined by seed and number."""
    rng = np.random.default_rng([seed, number])
    beat = rng.uniform(*BEAT) / S_PER_COLUMN
    motion = make_motion(rng, COLUMNS, beat, ROWS * MM_PER_ROW)
    strip = form_strip(rng, motion, ROWS, MM_PER_ROW, QUALITY["Good"])
    # Depths are measured from the upper edge of the strip, rows from the centre of the first row.
    first_row = 0.5
    return PhantomRecording(
        strip, motion.upper / MM_PER_ROW - first_row, motion.lower / MM_PER_ROW - first_row
    )


def scroll(strip: np.ndarray, width: int, step: int) -> list[np.ndarray]:
    """Return the frames (H, width) of a display on which a strip (H, W) scrolls.

    Args:
        strip: The strip.
        width: Columns of a frame.
        step: Columns from one frame to the next. The last frame shows the end of the strip.
    """
    last = strip.shape[1] - width
    starts = [*range(0, last, step), last]
    return [strip[:, start : start + width] for start in starts]


def write_recordings(folder: Path, seed: int) -> None:
    """Write three recordings of two animals into an existing folder, the last one as PNG."""
    mark_as_phantom(folder, "M-mode recordings", seed)
    names = [f"recording{number}" for number in range(1, len(ANIMALS) + 1)]
    for number, name in enumerate(names, start=1):
        recording = make_recording(seed, number)
        if number < len(names):
            frames = scroll(recording.strip, FRAME, STEP)
            dataset = make_dicom(frames, MM_PER_ROW, S_PER_COLUMN)
            dataset.save_as(folder / f"{name}.dcm", enforce_file_format=True)
        else:
            Image.fromarray(recording.strip).save(folder / f"{name}.png")
        columns = np.unique([*range(0, COLUMNS, POINT_EVERY), COLUMNS - 1])
        points = [
            pd.DataFrame({"trace": trace, "col": columns, "row": depth[columns].round(2)})
            for trace, depth in (("upper", recording.upper), ("lower", recording.lower))
        ]
        pd.concat(points).to_csv(folder / f"{name}_traces.csv", index=False)
    table = pd.DataFrame({"recording": names, "animal": ANIMALS})
    table["mm_per_row"] = [np.nan, np.nan, MM_PER_ROW]  # DICOM files state their own scale
    table["s_per_column"] = [np.nan, np.nan, S_PER_COLUMN]
    table.to_csv(folder / "recordings.csv", index=False)
    spans = [(names[0], 0.0, 1.8, "good"), (names[0], 1.8, 3.0, "bad")]
    spans_table = pd.DataFrame(spans, columns=["recording", "start_s", "end_s", "quality"])
    spans_table.to_csv(folder / "quality.csv", index=False)


def make_dicom(frames: Sequence[np.ndarray], mm_per_row: float, s_per_column: float) -> Dataset:
    """Return a multi-frame ultrasound file with a 2-D image above the M-mode frames.

    Its regions are, in this order, the 2-D image, an ECG and the M-mode frames.

    Args:
        frames: M-mode frames uint8 (H, W).
        mm_per_row, s_per_column: Scale of the M-mode region.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage, generate_uid

    height, width = frames[0].shape
    top, left = 60, 20
    pixels = np.zeros((len(frames), top + height + 30, left + width + 26, 3), np.uint8)
    pixels[:, 5:55, left : left + 80] = 90  # the 2-D image
    pixels[:, -20:-18] = (0, 200, 0)  # the ECG
    for picture, frame in zip(pixels, frames, strict=True):
        picture[top : top + height, left : left + width] = frame[..., None]

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(
        entropy_srcs=[str(pixels.sum()), str(pixels.shape)]
    )
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.Modality = "US"
    dataset.PatientName, dataset.PatientID = "PHANTOM", "PHANTOM"
    dataset.PhotometricInterpretation = "RGB"
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = pixels.shape[:3]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelRepresentation = 0
    # Boxes are (x0, y0, x1, y1). Codes and units: DICOM PS3.3, section C.8.5.5.
    dataset.SequenceOfUltrasoundRegions = [
        _region(1, (left, 5, left + 79, 54), (3, 3), (0.01, 0.01)),
        _region(4, (0, top + height + 10, width, top + height + 12), (4, 0), (s_per_column, 1.0)),
        _region(
            2,
            (left, top, left + width - 1, top + height - 1),
            (4, 3),
            (s_per_column, mm_per_row / 10),
        ),
    ]
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.size % 2)
    return dataset


def _region(
    kind: int, box: tuple[int, int, int, int], units: tuple[int, int], step: tuple[float, float]
) -> Dataset:
    from pydicom.dataset import Dataset

    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = kind, 1, 0
    region.RegionLocationMinX0, region.RegionLocationMinY0 = box[:2]
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = box[2:]
    region.PhysicalUnitsXDirection, region.PhysicalUnitsYDirection = units
    region.PhysicalDeltaX, region.PhysicalDeltaY = step
    return region
