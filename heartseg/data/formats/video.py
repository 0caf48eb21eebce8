"""AVI and MP4 videos."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from heartseg.data.formats.nifti import write_maps
from heartseg.data.formats.pixels import LUMA, Images, check_size
from heartseg.data.geometry import Geometry, plausible_time_step
from heartseg.errors import InputError

if TYPE_CHECKING:
    import av

MAX_PIXELS = 2**27
"""Largest number of pixels of all frames, as in 280 frames of 800 x 600."""
MAX_JITTER = 0.5
"""Largest deviation from the mean time between frames, as a fraction of it. Some containers round
times to 1/30 s."""


def read_video(path: Path, kind: str) -> Images:
    """Read the first video stream of a file. Colours are converted to gray by their luma.

    `Images.save` writes NIfTI files with the axes of the CAMUS release.

    Args:
        path: Path of the file.
        kind: "avi" or "mp4".

    Raises:
        InputError: The file has no usable video. The message has the form "reason. Remedy".
        Exception: The file is damaged. PyAV raises errors of many classes.
    """
    frames, times = _decode(path, kind)
    if not frames:
        raise InputError("contains no frame that can be decoded. Convert it to H.264 or MJPEG")
    step, note = _time_per_frame(times)
    geometry = Geometry(scale_problem="is a video, which has no scale in mm", time_per_frame=step)
    return Images(
        np.stack(frames),
        geometry,
        lambda maps, target: write_maps(maps, target, geometry),
        ".nii.gz",
        (note,) if note else (),
    )


def _time_per_frame(times: list[float | None]) -> tuple[float | None, str]:
    """Return the seconds per frame if they are uniform, else None and a note."""
    known = [time for time in times if time is not None]
    if len(known) < max(len(times), 2):
        return None, ""
    steps = np.diff(known)
    step = float(steps.mean())
    if np.abs(steps - step).max() > MAX_JITTER * step:
        return None, (
            f"has frames {1000 * steps.min():.3g} to {1000 * steps.max():.3g} ms apart, so the "
            "time per frame is unknown"
        )
    return plausible_time_step(step), ""


def _decode(path: Path, kind: str) -> tuple[list[np.ndarray], list[float | None]]:
    """Return gray frames uint8 (H, W), and the time of each in seconds or None."""
    frames: list[np.ndarray] = []
    times: list[float | None] = []
    with _open(path, kind) as container:
        stream = _stream(container)
        for frame in container.decode(stream):
            check_size(frame.height, frame.width)
            if frames and frames[0].shape != (frame.height, frame.width):
                raise InputError("its frames differ in size. Export all frames at one size")
            if (len(frames) + 1) * frame.height * frame.width > MAX_PIXELS:
                raise InputError(
                    f"has more than {MAX_PIXELS} pixels in total. Split it into shorter videos"
                )
            colours = frame.to_ndarray(format="rgb24")
            frames.append(np.rint(colours @ LUMA).astype(np.uint8))
            times.append(frame.time)
        return frames, times


def read_sizes(path: Path, kind: str) -> tuple[int, int, int]:
    """Return (frames, height, width) as the header states them; frames is 0 if it is not stated.

    Raises:
        InputError: The file has no usable video. The message has the form "reason. Remedy".
    """
    with _open(path, kind) as container:
        stream = _stream(container)
        return stream.frames, stream.height, stream.width


def _open(path: Path, kind: str) -> av.container.InputContainer:
    import av

    # Reading from memory with a fixed format: other formats open further files by name.
    try:
        return av.open(BytesIO(path.read_bytes()), format=kind)
    except MemoryError:  # raised by FFmpeg for a size that it rejects
        raise InputError("is damaged: its header states implausible sizes. Copy it again") from None


def _stream(container: av.container.InputContainer) -> av.VideoStream:
    if not container.streams.video:
        raise InputError("contains no video stream. Export the images as video")
    stream = container.streams.video[0]
    check_size(stream.height, stream.width)  # before the decoder allocates memory
    return stream
