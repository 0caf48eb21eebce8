"""Pixels as the readers of all formats give them: frames, their gray values, what saves maps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from heartseg.data.geometry import Geometry, Spacing
from heartseg.errors import InputError

LEAST_SIDE = 16
MOST_PIXELS = 2**26
"""Of a frame; a header that says otherwise is broken, or a file that unpacks to any size."""
MOST_PIXELS_IN_ALL = 2**25
"""Of a NIfTI, MetaImage, TIFF or video file; a sequence of 30 frames of 1000 x 1000."""
DEPTHS = (8, 10, 12, 14, 16)
"""Bits of gray values that machines and programs store in 16."""

SAME_GRAY = 0.02
"""Of the greatest value: JPEG leaves so much between the channels of a gray picture."""
MOSTLY_GRAY = 0.9
"""Part of the pixels that are not black. Text and traces are drawn on less than the rest."""
MOST_MAPPED = 256
"""Colours of a colour map. Frames of noise or floats have one triple of values per pixel."""


@dataclass(frozen=True)
class Images:
    """What a file holds.

    Attributes:
        frames: (T, H, W), uint8 from `read_images` and `read_labels`; T = 1 for a single image.
        geometry: how the frames lie, and how far the file vouches for that.
        save: writes label maps uint8 (K, H, W), or uncertainty float32 (K, H, W) from 0 to 1, to a
            path, on the file's own grid. PNG and TIFF have 8 bits, so that 1 is stored as 255.
        ending: of the file that `save` writes.
        notes: what was noticed while reading, as clauses about the file ("states no ...").
        region: rows and columns of the file's pictures, and of what `save` writes, that the frames
            are.
    """

    frames: np.ndarray
    geometry: Geometry
    save: Callable[[np.ndarray, Path], None]
    ending: str
    notes: tuple[str, ...] = ()
    region: tuple[slice, slice] = (slice(None), slice(None))

    @property
    def spacing(self) -> Spacing | None:
        """(row, column) in mm; None if nothing vouches for a scale."""
        return self.geometry.spacing

    @property
    def frame_rate(self) -> float | None:
        """Frames per second; None if the file does not say."""
        step = self.geometry.time_per_frame
        return 1 / step if step else None


def check_size(height: int, width: int, count: int = 1) -> None:
    """Refuse pictures that are too small to segment or too large to be true.

    Raises:
        InputError: "reason. Remedy."
    """
    if min(height, width) < LEAST_SIDE:
        raise InputError(
            f"has frames of {height} x {width} pixels; wanted are {LEAST_SIDE} or more on each "
            "side. Export the whole picture at its own size"
        )
    if height * width > MOST_PIXELS:
        raise InputError(
            f"has frames of {height} x {width} pixels, more than {MOST_PIXELS} in all. Export it "
            "with fewer pixels"
        )
    if count * height * width > MOST_PIXELS_IN_ALL and count > 1:
        raise InputError(
            f"has {count} frames of {height} x {width} pixels, more than {MOST_PIXELS_IN_ALL} "
            "pixels in all. Cut it into shorter sequences"
        )


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Gray values as uint8, same shape.

    Whole numbers within 0-255 are kept exactly. Other values of uint16 lose their lowest bits: of
    the 10, 12, 14 or 16 bits that hold the greatest value, the upper 8 stay, so that all frames
    and files of a machine get the same brightness. Anything else is scaled linearly so that its
    least value becomes 0 and its greatest 255.

    Raises:
        InputError: a value is NaN or infinite.
    """
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind == "u" and image.dtype.itemsize == 2:
        return (image >> (depth_of(image) - 8)).astype(np.uint8)
    values = image.astype(np.float64)
    low, high = values.min(), values.max()
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError("holds NaN or infinite values. Replace them, for instance by 0")
    if low < 0 or high > 255 or (values != np.rint(values)).any():
        values = np.rint((values - low) * (255.0 / (high - low) if high > low else 0.0))
    return values.astype(np.uint8)


def depth_of(values: np.ndarray) -> int:
    """The least of `DEPTHS` whose bits hold all values.

    Raises:
        InputError: none does.
    """
    greatest = int(values.max(initial=0))
    depth = next((bits for bits in DEPTHS if greatest < 2**bits), None)
    if depth is None:
        raise InputError(f"has values up to {greatest}, more than 16 bits hold. Export it with 16")
    return depth


# --- colours ------------------------------------------------------------------------------


def gray_of(channels: np.ndarray) -> np.ndarray:
    """The gray values (...) of colours (..., 3 or 4), the fourth one opacity.

    Raises:
        InputError: the channels differ by more than `SAME_GRAY`.
    """
    if not _are_gray(channels).all():
        raise InputError("holds colours, not gray values. Export it in gray")
    return channels[..., 1]


def _are_gray(channels: np.ndarray) -> np.ndarray:
    """Which pixels (...) of colours (..., 3 or 4) are gray, bool."""
    first = channels[..., :3].astype(np.float32)
    return np.ptp(first, axis=-1) <= SAME_GRAY * max(float(first.max(initial=0)), 0.0)


def gray_or_frames(pixels: np.ndarray) -> tuple[np.ndarray, str]:
    """Decide by the content whether a last axis of 3 or 4 holds colours or frames.

    Neither the header nor the shape tells. Colours, if the first three channels are equal in all
    pixels or nearly all (a gray picture with coloured text), or if one channel determines the
    others (a colour map). In moving pictures the same gray value of one frame meets many values of
    the next.

    Returns:
        Gray values without the axis, or the pixels as they are; and a note on that, "" if nothing
        is unusual.

    Raises:
        InputError: they are colours that differ.
    """
    channels = pixels[..., :3].reshape(-1, 3)
    if pixels.shape[-1] == 4 and np.ptp(pixels[..., 3]) > 0:
        return pixels, ""
    lit = channels[(channels != 0).any(axis=1)]
    if len(lit) and _are_gray(lit).mean() > MOSTLY_GRAY:
        return gray_of(pixels), "has three equal colour channels, which are read as one gray one"
    combined, separate = len(np.unique(lit, axis=0)), [len(np.unique(one)) for one in lit.T]
    if 1 < combined <= min(max(separate), MOST_MAPPED):
        return gray_of(pixels), ""  # which refuses it
    return pixels, f"has a third axis of {pixels.shape[-1]}, which is taken as frames, not colours"
