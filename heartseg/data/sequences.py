"""Half sequences of CAMUS: the frames from end-diastole (ED) to end-systole (ES) of one view.

As input of a network a half sequence becomes a fixed number of frames stacked as channels. The
first channel is the frame to be segmented and the last one the other end of the half cycle: an ED
sample goes forward in time, an ES sample backward. So each sequence gives two samples, each with
one label map.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from heartseg.data.camus import NIFTI, CamusCase
from heartseg.data.camus_tables import read_info
from heartseg.data.frames import resample_frames
from heartseg.data.images import read_images
from heartseg.data.prepared import Sample
from heartseg.data.source import Case, Survey
from heartseg.errors import BadFilesError, InputError


@dataclass(frozen=True)
class SequenceCase:
    """A half sequence with the frame and the label map of one of its ends.

    Attributes:
        case: the ED or ES frame.
        path: the NIfTI file of the sequence.
        count: frames after resampling.
    """

    case: CamusCase
    path: Path
    count: int

    @property
    def case_id(self) -> str:
        return self.case.case_id

    @property
    def patient(self) -> str:
        return self.case.patient

    def read(self) -> Sample:
        """The frame's own sample, with the stack uint8 (count, H, W) for its image.

        Raises:
            BadFilesError: with every problem of the case.
        """
        problems: list[str] = []
        try:
            sample = self.case.read()
        except BadFilesError as error:
            problems += error.problems
        try:
            sequence = read_images(self.path, spacing=self.case.spacing)
        except InputError as error:
            problems.append(str(error))
        if problems:
            raise BadFilesError("camus", problems)

        frames, shape = sequence.frames, sample.mask.shape
        first, last = sorted((self.case.frame, self.case.other_frame))
        if frames.shape[1:] != shape:
            problems.append(
                f"{self.path}: its frames have {frames.shape[1:]} pixels, the ED and ES "
                f"frames {shape}. Export the sequence on the grid of those."
            )
        elif sequence.spacing is None:
            problems.append(f"{self.path}: {sequence.geometry.doubt}. Mend its header.")
        elif not np.allclose(sequence.spacing, sample.spacing, 1e-3):
            problems.append(
                f"{self.path}: has a spacing of {sequence.spacing} mm, its ED and ES "
                f"frames {sample.spacing} mm. Mend the header of the one that is wrong."
            )
        if not first < last < len(frames):
            problems.append(
                f"{self.path}: has {len(frames)} frames, where Info_{self.case.view}.cfg has ED "
                f"and ES as frames {first + 1} and {last + 1}. Give the sequence that the file "
                "Info describes."
            )
        if problems:
            raise BadFilesError("camus", problems)
        stack = resample_frames(frames[first : last + 1], self.count)
        return replace(sample, image=stack if self.case.frame == first else stack[::-1].copy())


def stack_sequences(survey: Survey, frames: int) -> Survey:
    """The same survey with half sequences for images; views that have none are left out.

    Args:
        survey: of `heartseg.data.camus.survey`.
        frames: count after resampling, from 2.

    Raises:
        InputError: no view has a half sequence.
    """
    cases: list[Case] = []
    lacking: dict[str, set[str]] = {}
    for case in survey.cases:
        assert isinstance(case, CamusCase)
        path = _half_sequence(case)
        if path is None:
            lacking.setdefault(case.patient, set()).add(case.view)
        else:
            cases.append(SequenceCase(case, path, frames))
    if not cases:
        raise InputError(
            "the source has no file PATIENT_VIEW_half_sequence.nii.gz; get the whole release, "
            "or set datasets.camus.frames to 1"
        )
    notes = [
        f"{patient}: no half sequence of {', '.join(sorted(views))}, so not used"
        for patient, views in lacking.items()
    ]
    patients = {case.patient for case in survey.cases}
    complete = len(patients) - len(lacking)
    notes.append(f"{complete} of {len(patients)} patients have the half sequences of their views")
    return replace(survey, cases=cases, notes=[*survey.notes, *notes])


def _half_sequence(case: CamusCase) -> Path | None:
    stem = case.image.parent / f"{case.patient}_{case.view}_half_sequence"
    paths = [stem.with_name(stem.name + ending) for ending in NIFTI]
    return next((path for path in paths if path.is_file()), None)


def frame_rate(path: Path) -> float | None:
    """Frames per second that Info_VIEW.cfg beside a half sequence gives; None where it is unknown.

    Args:
        path: PATIENT_VIEW_half_sequence.nii.gz; any other name gives None.
    """
    parts = path.name.split("_half_sequence")[0].split("_")
    try:
        rate = float(read_info(path.with_name(f"Info_{parts[-1]}.cfg"))["FrameRate"])
    except (InputError, KeyError, ValueError):
        return None
    return rate if 0 < rate < np.inf else None
