"""Image files as frames in memory, and label maps and uncertainty on the files' own grids.

NIfTI (2-D, or 3-D with time last), PNG, and ultrasound DICOM (one frame or many).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from heartseg.data.nifti import MOST_PIXELS as MOST_PIXELS_IN_ALL
from heartseg.data.nifti import read_bytes, spacing_of
from heartseg.errors import InputError, one_line

if TYPE_CHECKING:
    from pydicom import Dataset

SUFFIXES = (".nii.gz", ".nii", ".png", ".dcm", ".dicom")
FREE_TEXT = {"descrip", "aux_file", "intent_name", "db_name"}
"""Of a NIfTI header; converters put names and dates there."""
LEAST_SIDE = 16
MOST_PIXELS = 2**26
"""Of a frame; a header that says otherwise is broken, or a file that unpacks to any size."""


@dataclass(frozen=True)
class Images:
    """What a file holds.

    Attributes:
        frames: (T, H, W) as stored, from `read_images` uint8; T = 1 for a single image.
        spacing: (row, column) in mm, None where the file does not say.
        save: writes label maps uint8 (T, H, W), or uncertainty float32 (T, H, W) from 0 to 1, in
            the form of the input to a path. A PNG has 8 bits, so that 1 is stored as 255 there.
        ending: of the file that `save` writes.
        frame_rate: frames per second, where the file says.
        region: rows and columns of the file's pictures, and of what `save` writes, that the frames
            are.
    """

    frames: np.ndarray
    spacing: tuple[float, float] | None
    save: Callable[[np.ndarray, Path], None]
    ending: str
    frame_rate: float | None = None
    region: tuple[slice, slice] = (slice(None), slice(None))


def suffix_of(path: Path) -> str:
    """The file's ending if it is one of SUFFIXES, else ""."""
    return next((end for end in SUFFIXES if path.name.lower().endswith(end)), "")


def stem_of(path: Path) -> str:
    """The file's name without that ending."""
    return path.name[: len(path.name) - len(suffix_of(path))]


def is_image(path: Path) -> bool:
    """Whether the name, or the mark of DICOM, promises an image."""
    from heartseg.data.mmode_dicom import is_dicom

    return bool(suffix_of(path)) or is_dicom(path)


def read_images(path: Path) -> Images:
    """Read a NIfTI, PNG or DICOM file.

    Raises:
        InputError: "path: reason. Remedy."
    """
    from heartseg.data.nifti import to_uint8

    return _read(path, to_uint8)


def read_uncertainty(path: Path) -> np.ndarray:
    """What `Images.save` wrote of uncertainty: float32 (T, H, W) from 0 to 1.

    Raises:
        InputError: "path: reason. Remedy."
    """
    return _read(path, _from_bytes).frames


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return values if values.dtype == np.uint8 else np.rint(255 * values).astype(np.uint8)


def _from_bytes(values: np.ndarray) -> np.ndarray:
    return (values / 255 if values.dtype == np.uint8 else values).astype(np.float32)


def _read(path: Path, convert: Callable[[np.ndarray], np.ndarray]) -> Images:
    reader = {".png": _read_png, ".nii": _read_nifti, ".nii.gz": _read_nifti}.get(
        suffix_of(path), _read_dicom
    )
    try:
        images = reader(path)
        _check_size(images.frames.shape)
        return replace(images, frames=convert(images.frames))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # nibabel, zlib, Pillow and pydicom raise many kinds
        reason = f"cannot be read ({one_line(error)}); copy or export it again"
        raise InputError(f"{path}: {reason}") from None


def _check_size(shape: tuple[int, ...]) -> None:
    if min(shape[1:]) < LEAST_SIDE or shape[1] * shape[2] > MOST_PIXELS:
        raise InputError(
            f"has frames of {shape[1]} x {shape[2]} pixels; wanted are {LEAST_SIDE} or more on "
            f"each side and {MOST_PIXELS} or fewer in all"
        )


# --- readers ------------------------------------------------------------------------------


def _read_png(path: Path) -> Images:
    from PIL import Image

    with Image.open(path, formats=["PNG"]) as image:
        _check_size((1, image.height, image.width))
        deep = image.mode.startswith(("I", "F"))  # more than 8 bits, which "L" would cut off
        pixels = np.array(image if deep else image.convert("L"))

    def save(maps: np.ndarray, place: Path) -> None:
        Image.fromarray(_to_bytes(maps[0])).save(place)

    return Images(pixels[None], None, save, ".png")


def _read_nifti(path: Path) -> Images:
    import nibabel as nib

    data = read_bytes(path)
    is_second = 540 in (int.from_bytes(data[:4], order) for order in ("little", "big"))
    image = (nib.Nifti2Image if is_second else nib.Nifti1Image).from_bytes(data)
    shape = image.shape
    if image.get_data_dtype().fields is not None:
        raise InputError("holds colours; export gray values")
    if len(shape) < 2 or 0 in shape or sum(size > 1 for size in shape[2:]) > 1:
        raise InputError(f"has shape {shape}; wanted are 2-D images, or 3-D with time last")
    if math.prod(shape) > MOST_PIXELS_IN_ALL:
        raise InputError(f"has shape {shape}, more pixels than can be; export it again")
    pixels = np.asanyarray(image.dataobj)

    def save(maps: np.ndarray, place: Path) -> None:
        header = image.header.copy()
        for field in FREE_TEXT & set(header.keys()):
            header[field] = b""
        header.extensions.clear()  # may hold a whole DICOM header
        header.set_data_dtype(maps.dtype)
        header.set_slope_inter(1, 0)
        header["cal_min"], header["cal_max"] = 0, 0  # the display range of the gray values
        stored = np.ascontiguousarray(maps.transpose(2, 1, 0))
        if stored.size == pixels.size:  # not only the ends of a sequence
            stored = stored.reshape(pixels.shape)
        nib.save(type(image)(stored, image.affine, header), place)

    # stored as (lateral W, depth H, time...), wanted as (T, H, W)
    frames = pixels.reshape(*shape[:2], -1).transpose(2, 1, 0)
    spacing = spacing_of(data, type(image.header))
    known = all(0 < size < math.inf for size in spacing)
    return Images(frames, spacing if known else None, save, ".nii.gz")


TISSUE_2D = 1  # Region Spatial Format (0018,6012), DICOM PS3.3, section C.8.5.5.1.1


def _read_dicom(path: Path) -> Images:
    """The calibrated 2-D region alone is the image: what stands around it is text and scales.

    What is saved are NIfTI files of the whole picture, 0 around the region, in the axes of the
    other NIfTI files.
    """
    import nibabel as nib

    from heartseg.data.mmode_dicom import gray_frames, open_dicom

    dataset = open_dicom(path)
    rows, columns, spacing = _tissue_region(dataset)
    frames = np.stack(list(gray_frames(dataset, rows, columns)))
    time = dataset.get("FrameTime")  # ms
    rate = 1000 / float(time) if time and float(time) > 0 else None

    def save(maps: np.ndarray, place: Path) -> None:
        whole = np.zeros((len(maps), dataset.Rows, dataset.Columns), maps.dtype)
        whole[:, rows, columns] = maps
        stored = whole.transpose(2, 1, 0)
        row, column = spacing or (1.0, 1.0)
        image = nib.Nifti1Image(
            stored if len(maps) > 1 else stored[..., 0], np.diag([-column, -row, 1.0, 1.0])
        )
        image.header.set_xyzt_units("mm" if spacing else "unknown", "sec")
        if rate and len(maps) > 1:
            image.header.set_zooms((column, row, 1 / rate))
        nib.save(image, place)

    return Images(frames, spacing, save, ".nii.gz", rate, (rows, columns))


def _tissue_region(dataset: Dataset) -> tuple[slice, slice, tuple[float, float] | None]:
    """Rows, columns and spacing (row, column) in mm of the largest 2-D region; the whole picture
    where no region is given, with its Pixel Spacing if it has one."""
    from heartseg.data.mmode_dicom import CENTIMETRES, M_MODE

    regions = dataset.get("SequenceOfUltrasoundRegions") or []
    kinds = [region.get("RegionSpatialFormat") for region in regions]
    if M_MODE in kinds:
        raise InputError("is an M-mode recording; segment it by `heartseg recording`")
    found = [region for region in regions if region.get("RegionSpatialFormat") == TISSUE_2D]
    if regions and not found:
        raise InputError("has no 2-D region; export the 2-D images")
    if not found:
        spacing = dataset.get("PixelSpacing")
        pair = (float(spacing[0]), float(spacing[1])) if spacing else None
        return slice(None), slice(None), pair
    bounds = []
    for region in found:
        names = ("MinY0", "MaxY1", "MinX0", "MaxX1")
        top, bottom, left, right = (int(region.get(f"RegionLocation{n}", -1)) for n in names)
        if not (0 <= top < bottom < dataset.Rows and 0 <= left < right < dataset.Columns):
            raise InputError("its 2-D region is not inside the picture; export it again")
        bounds.append(((bottom - top) * (right - left), top, bottom, left, right, region))
    _, top, bottom, left, right, region = max(bounds, key=lambda bound: bound[0])
    units = (region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection"))
    steps = [10 * abs(float(region.get(f"PhysicalDelta{axis}", 0))) for axis in "YX"]
    known = units == (CENTIMETRES, CENTIMETRES) and min(steps) > 0
    # both corners belong to the region
    return (
        slice(top, bottom + 1),
        slice(left, right + 1),
        (steps[0], steps[1]) if known else None,
    )
