"""AVI and MP4 files."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np

from heartseg.data.dicom import LUMA
from heartseg.data.geometry import Geometry
from heartseg.data.nifti import write_maps
from heartseg.data.pixels import Images, check_size
from heartseg.errors import InputError

MOST_PIXELS = 2**27
"""Of all frames; 280 of 800 x 600."""


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
    import av

    frames: list[np.ndarray] = []
    # from memory and as this format alone: others open files that a file names
    with av.open(BytesIO(path.read_bytes()), format=kind) as container:
        stream = next(iter(container.streams.video), None)
        if stream is None:
            raise InputError("holds no video. Export the pictures")
        for frame in container.decode(stream):
            check_size(frame.height, frame.width)
            if frames and frames[0].shape != (frame.height, frame.width):
                raise InputError("its frames differ in size. Export it again")
            if (len(frames) + 1) * frame.height * frame.width > MOST_PIXELS:
                raise InputError(
                    f"has more than {MOST_PIXELS} pixels in all. Cut it into shorter sequences"
                )
            colours = frame.to_ndarray(format="rgb24")
            frames.append(np.rint(colours @ LUMA).astype(np.uint8))
        rate = float(stream.average_rate or 0)
    if not frames:
        raise InputError("holds no frame that can be decoded. Export it again")
    geometry = Geometry(
        doubt="is a video, which has no scale of tissue",
        time_per_frame=1 / rate if len(frames) > 1 and 1 < rate < 1000 else None,
    )
    return Images(
        np.stack(frames),
        geometry,
        lambda maps, place: write_maps(maps, place, geometry),
        ".nii.gz",
    )
