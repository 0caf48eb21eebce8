"""AVI and MP4 files."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from heartseg.data.formats.dicom import LUMA
from heartseg.data.formats.nifti import write_maps
from heartseg.data.formats.pixels import Images, check_size
from heartseg.data.geometry import Geometry, believed_step
from heartseg.errors import InputError

if TYPE_CHECKING:
    import av

MOST_PIXELS = 2**27
"""Of all frames; 280 of 800 x 600."""
UNEVEN = 0.5
"""Part of the mean time between frames by which one may differ: containers round to 1/30 s."""


def read_video(path: Path, kind: str) -> Images:
    """Read the first video stream; errors of PyAV where it is broken.

    Colours become gray by their luma. What is saved are NIfTI files in the axes of the CAMUS
    release.

    Args:
        path: of the file.
        kind: "avi" or "mp4".

    Raises:
        InputError: "reason. Remedy."
    """
    frames, times = _decoded(path, kind)
    if not frames:
        raise InputError("holds no frame that can be decoded. Convert it to H.264 or MJPEG")
    step, note = _step(times)
    geometry = Geometry(doubt="is a video, which has no scale of tissue", time_per_frame=step)
    return Images(
        np.stack(frames),
        geometry,
        lambda maps, place: write_maps(maps, place, geometry),
        ".nii.gz",
        (note,) if note else (),
    )


def _step(times: list[float | None]) -> tuple[float | None, str]:
    """Seconds per frame if all are alike, and a note if they are not."""
    known = [time for time in times if time is not None]
    if len(known) < max(len(times), 2):
        return None, ""
    steps = np.diff(known)
    step = float(steps.mean())
    if np.abs(steps - step).max() > UNEVEN * step:
        return None, (
            f"has frames {1000 * steps.min():.3g} to {1000 * steps.max():.3g} ms apart; the time "
            "per frame counts as unknown"
        )
    return believed_step(step), ""


def _decoded(path: Path, kind: str) -> tuple[list[np.ndarray], list[float | None]]:
    """Gray frames uint8 (H, W), and the time of each in seconds, None where it has none."""
    frames: list[np.ndarray] = []
    times: list[float | None] = []
    with _open(path, kind) as container:
        stream = _stream(container)
        for frame in container.decode(stream):
            check_size(frame.height, frame.width)
            if frames and frames[0].shape != (frame.height, frame.width):
                raise InputError("its frames differ in size. Export all of them at one size")
            if (len(frames) + 1) * frame.height * frame.width > MOST_PIXELS:
                raise InputError(
                    f"has more than {MOST_PIXELS} pixels in all. Cut it into shorter sequences"
                )
            colours = frame.to_ndarray(format="rgb24")
            frames.append(np.rint(colours @ LUMA).astype(np.uint8))
            times.append(frame.time)
        return frames, times


def sizes_of(path: Path, kind: str) -> tuple[int, int, int]:
    """Frames, height and width that the header states; 0 frames if it does not say.

    Raises:
        InputError: "reason. Remedy."
    """
    with _open(path, kind) as container:
        stream = _stream(container)
        return stream.frames, stream.height, stream.width


def _open(path: Path, kind: str) -> av.container.InputContainer:
    import av

    # from memory and as this format alone: others open files that a file names
    try:
        return av.open(BytesIO(path.read_bytes()), format=kind)
    except MemoryError:  # FFmpeg's word for a size that it refuses
        raise InputError(
            "is damaged: its header states sizes that cannot be. Copy it again"
        ) from None


def _stream(container: av.container.InputContainer) -> av.VideoStream:
    if not container.streams.video:
        raise InputError("holds no video. Export the pictures")
    stream = container.streams.video[0]
    check_size(stream.height, stream.width)  # before a decoder takes memory
    return stream
