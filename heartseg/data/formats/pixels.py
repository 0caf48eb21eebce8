"""The result of reading an image file, and the conversion of its values to 8-bit gray."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from heartseg.data.geometry import Geometry, Spacing
from heartseg.errors import InputError

MIN_SIDE = 16
MAX_PIXELS = 2**26
"""Largest number of pixels of a frame. A header that states more is broken or hostile."""
MAX_TOTAL_PIXELS = 2**25
"""Largest number of pixels of a NIfTI, MetaImage or TIFF file, as in 30 frames of 1000 x 1000."""
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
DEPTHS = (8, 10, 12, 14, 16)
"""Numbers of bits of the gray values that ultrasound machines store as 16-bit values."""

GRAY_TOLERANCE = 0.02
"""Largest difference between the channels of a gray pixel, relative to the greatest value. JPEG
compression causes such differences."""
MIN_GRAY_FRACTION = 0.9
"""Smallest fraction of gray pixels, among those that are not black, of a gray image with coloured
text or traces."""
MAX_COLORMAP_COLOURS = 256
"""Largest number of colours of a colour map. Frames of noise or floats have far more."""


@dataclass(frozen=True)
class Images:
    """Content of an image file.

    Attributes:
        frames: (T, H, W), uint8 from `read_images` and `read_labels`; T = 1 for a single image.
        geometry: Scale, orientation and time of the frames.
        save: Function that writes label maps uint8 (K, H, W), or uncertainty float32 (K, H, W) from
            0 to 1, to a path, on the grid of the file. PNG and TIFF files have 8 bits, so an
            uncertainty of 1 is stored as 255.
        suffix: Suffix of the file that `save` writes.
        notes: Unusual properties of the file, as clauses about it ("states no ...").
        region: Rows and columns of the stored images that `frames` contains. `save` writes images
            of the stored size.
    """

    frames: np.ndarray
    geometry: Geometry
    save: Callable[[np.ndarray, Path], None]
    suffix: str
    notes: tuple[str, ...] = ()
    region: tuple[slice, slice] = (slice(None), slice(None))

    @property
    def spacing(self) -> Spacing | None:
        """(row, column) in mm per pixel; None if no plausible scale is known."""
        return self.geometry.spacing

    @property
    def frame_rate(self) -> float | None:
        """Frames per second; None if unknown."""
        step = self.geometry.time_per_frame
        return 1 / step if step else None


def check_size(height: int, width: int, count: int = 1) -> None:
    """Check that images are neither too small to be segmented nor implausibly large.

    Args:
        height, width: Size of a frame in pixels.
        count: Number of frames.

    Raises:
        InputError: They are. The message has the form "reason. Remedy".
    """
    if min(height, width) < MIN_SIDE:
        raise InputError(
            f"has frames of {height} x {width} pixels, but needs {MIN_SIDE} or more on each side. "
            "Export the whole image at its full size"
        )
    if height * width > MAX_PIXELS:
        raise InputError(
            f"has frames of {height} x {width} pixels, but a frame may have at most {MAX_PIXELS}. "
            "Export it with fewer pixels"
        )
    if count * height * width > MAX_TOTAL_PIXELS and count > 1:
        raise InputError(
            f"has {count} frames of {height} x {width} pixels, but may have at most "
            f"{MAX_TOTAL_PIXELS} pixels in total. Split it into shorter sequences"
        )


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Convert gray values to uint8 of the same shape.

    Whole numbers from 0 to 255 do not change. Values of uint16 are shifted: of the 8, 10, 12, 14 or
    16 bits that contain the greatest value, the upper 8 are kept, so all frames and files of a
    machine have the same brightness. Other values are scaled linearly to 0..255.

    Raises:
        InputError: A value is NaN or infinite.
    """
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind == "u" and image.dtype.itemsize == 2:
        return (image >> (bit_depth(image) - 8)).astype(np.uint8)
    values = image.astype(np.float64)
    low, high = values.min(), values.max()
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError("contains NaN or infinite values. Replace them, for example by 0")
    if low < 0 or high > 255 or (values != np.rint(values)).any():
        values = np.rint((values - low) * (255.0 / (high - low) if high > low else 0.0))
    return values.astype(np.uint8)


def bit_depth(values: np.ndarray) -> int:
    """Return the smallest number of bits, one of `DEPTHS`, that contains all values.

    Raises:
        InputError: A value needs more than 16 bits.
    """
    greatest = int(values.max(initial=0))
    depth = next((bits for bits in DEPTHS if greatest < 2**bits), None)
    if depth is None:
        raise InputError(
            f"has values up to {greatest}, which need more than 16 bits. Export it with 16 bits"
        )
    return depth


# --- colours ------------------------------------------------------------------------------


def to_gray(channels: np.ndarray) -> np.ndarray:
    """Convert equal colour channels (..., 3 or 4) to gray values (...). Channel 4 is opacity.

    Raises:
        InputError: The channels differ by more than `GRAY_TOLERANCE`.
    """
    if not _is_gray(channels).all():
        raise InputError("contains colours instead of gray values. Export it in gray")
    return channels[..., 1]


def _is_gray(channels: np.ndarray) -> np.ndarray:
    """Return which pixels of colours (..., 3 or 4) are gray, bool (...)."""
    first = channels[..., :3].astype(np.float32)
    return np.ptp(first, axis=-1) <= GRAY_TOLERANCE * max(float(first.max(initial=0)), 0.0)


def gray_or_frames(pixels: np.ndarray) -> tuple[np.ndarray, str]:
    """Decide by the values whether a last axis of length 3 or 4 contains colours or frames.

    It contains colours if the first three channels are equal in nearly all pixels (a gray image
    with coloured text), or if there are few combinations of their values (a colour map). In a
    sequence, pixels with the same value in one frame have many different values in the next one.

    Args:
        pixels: Values (..., 3 or 4).

    Returns:
        (gray values, note). The gray values are without the last axis if it contains colours, else
        they are `pixels`. The note is "" if nothing is unusual.

    Raises:
        InputError: The axis contains colours that are not gray.
    """
    channels = pixels[..., :3].reshape(-1, 3)
    if pixels.shape[-1] == 4 and np.ptp(pixels[..., 3]) > 0:
        return pixels, ""
    lit = channels[(channels != 0).any(axis=1)]
    if len(lit) and _is_gray(lit).mean() > MIN_GRAY_FRACTION:
        return to_gray(pixels), "has three equal colour channels, which are read as gray values"
    combined, separate = len(np.unique(lit, axis=0)), [len(np.unique(one)) for one in lit.T]
    if 1 < combined <= min(max(separate), MAX_COLORMAP_COLOURS):
        return to_gray(pixels), ""  # raises the error
    return pixels, f"has a third axis of {pixels.shape[-1]}, which is read as frames, not colours"
