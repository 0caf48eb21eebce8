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

from heartseg.data.camus.names import HALF_SEQUENCE, parse
from heartseg.data.camus.reader import CamusCase
from heartseg.data.camus.tables import FRAME_LINES, INFO_FILE, read_info
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
        path: file of the sequence.
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
        """Read the frame's sample, with the stack uint8 (count, H, W) for its image.

        Raises:
            BadFilesError: with every problem of the case.
        """
        problems: list[str] = []
        try:
            sample = self.case.read()
        except BadFilesError as error:
            problems += error.problems
        try:
            sequence = read_images(self.path)
        except InputError as error:
            problems.append(str(error))
        if problems:
            raise BadFilesError("camus", problems)

        info, frames, shape = self.case.info, sequence.frames, sample.mask.shape
        if info is None:
            problems.append(
                f"{self.path.with_name(f'Info_{self.case.view}.cfg')}: is missing, so it is "
                "unknown which frames of the half sequence are ED and ES. Write it with the "
                f"{FRAME_LINES}."
            )
        if frames.shape[1:] != shape:
            problems.append(
                f"{self.path}: its frames have {frames.shape[1]} x {frames.shape[2]} pixels, those "
                f"of ED and ES {shape[0]} x {shape[1]}. Export the sequence on their grid."
            )
        elif sequence.spacing and not np.allclose(sequence.spacing, sample.spacing, rtol=1e-3):
            problems.append(
                f"{self.path}: has a spacing of {sequence.spacing} mm, its ED and ES frames one of "
                f"{sample.spacing} mm. Mend the header that is wrong."
            )
        first, last = sorted(info.frames.values()) if info else (0, 1)
        if not first < last < len(frames):
            problems.append(
                f"{self.path}: has {len(frames)} frames, where Info_{self.case.view}.cfg has ED "
                f"and ES as frames {first + 1} and {last + 1}. Correct the numbers, or copy the "
                "whole sequence again."
            )
        if problems:
            raise BadFilesError("camus", problems)
        stack = resample_frames(frames[first : last + 1], self.count)
        return replace(sample, image=stack if sample.frame == first else stack[::-1].copy())


def stack_sequences(survey: Survey, frames: int, notes: list[str]) -> Survey:
    """Take half sequences for images; views that have none are left out.

    Args:
        survey: of `heartseg.data.camus.reader.survey`.
        frames: count after resampling, from 2.
        notes: gets the views that have none.

    Raises:
        InputError: no view has a half sequence.
    """
    cases: list[Case] = []
    lacking: dict[str, set[str]] = {}
    for case in survey.cases:
        assert isinstance(case, CamusCase)
        if case.sequence is None:
            lacking.setdefault(case.patient, set()).add(case.view)
        else:
            cases.append(SequenceCase(case, case.sequence, frames))
    if not cases:
        raise InputError(
            "the source has no file PATIENT_VIEW_half_sequence.nii.gz. Add the half sequences, or "
            "set datasets.camus.frames to 1"
        )
    notes += [
        f"{patient}: no half sequence of {', '.join(sorted(views))}, so not used"
        for patient, views in lacking.items()
    ]
    patients = {case.patient for case in survey.cases}
    complete = len(patients) - len(lacking)
    notes.append(f"{complete} of {len(patients)} patients have the half sequences of their views")
    return replace(survey, cases=cases)


def frame_rate(path: Path) -> float | None:
    """Frames per second that Info_VIEW.cfg beside a half sequence gives; None where it is unknown.

    Args:
        path: PATIENT_VIEW_half_sequence.nii.gz; any other name gives None.
    """
    named = parse(path)
    if named is None or named.frames != HALF_SEQUENCE:
        return None
    for beside in sorted(path.parent.glob("*.*")):
        if (match := INFO_FILE.fullmatch(beside.name)) and match[1].upper() == named.view:
            try:
                return read_info(beside).frame_rate
            except InputError:
                return None
    return None
