"""CAMUS half sequences: the frames of one view from end-diastole (ED) to end-systole (ES).

A half sequence is resampled to a fixed number of frames, which are the channels of the network's
input. The first channel is the frame to be segmented. An ED sample therefore runs forward in time
and an ES sample backward, so each sequence gives two samples with one label map each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from heartseg.data.camus.names import HALF_SEQUENCE, parse_path
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
        case: The ED or ES frame.
        path: Path of the sequence.
        count: Number of frames after resampling.
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
        """Read the sample of the frame, with the resampled sequence uint8 (count, H, W) as image.

        Raises:
            BadFilesError: Files are invalid. It lists every problem of the case.
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
                f"{self.path.with_name(f'Info_{self.case.view}.cfg')}: is missing, so the ED and "
                f"ES frames of the half sequence are unknown. Write it with the {FRAME_LINES}."
            )
        if frames.shape[1:] != shape:
            problems.append(
                f"{self.path}: has frames of {frames.shape[1]} x {frames.shape[2]} pixels, but its "
                f"ED and ES images have {shape[0]} x {shape[1]}. Export the sequence on their grid."
            )
        elif sequence.spacing and not np.allclose(sequence.spacing, sample.spacing, rtol=1e-3):
            problems.append(
                f"{self.path}: has a spacing of {sequence.spacing} mm, but its ED and ES images "
                f"have {sample.spacing} mm. Correct the wrong header."
            )
        first, last = sorted(info.frames.values()) if info else (0, 1)
        if not first < last < len(frames):
            problems.append(
                f"{self.path}: has {len(frames)} frames, but according to "
                f"Info_{self.case.view}.cfg ED and ES are the frames {first + 1} and {last + 1}. "
                "Correct the numbers, or copy the whole sequence again."
            )
        if problems:
            raise BadFilesError("camus", problems)
        stack = resample_frames(frames[first : last + 1], self.count)
        return replace(sample, image=stack if sample.frame == first else stack[::-1].copy())


def stack_sequences(survey: Survey, frames: int, notes: list[str]) -> Survey:
    """Replace frames by half sequences. Views without a half sequence are not used.

    Args:
        survey: Result of `heartseg.data.camus.reader.survey`.
        frames: Number of frames after resampling, 2 or more.
        notes: List to which the views without half sequences are appended.

    Raises:
        InputError: No view has a half sequence.
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
            "datasets.camus.source: contains no file PATIENT_VIEW_half_sequence.nii.gz. Add the "
            "half sequences, or set datasets.camus.frames to 1"
        )
    notes += [
        f"{patient}: no half sequence of {', '.join(sorted(views))}, so this view is not used"
        for patient, views in lacking.items()
    ]
    patients = {case.patient for case in survey.cases}
    complete = len(patients) - len(lacking)
    notes.append(f"{complete} of {len(patients)} patients have half sequences of all their views")
    return replace(survey, cases=cases)


def frame_rate(path: Path) -> float | None:
    """Return the frames per second in Info_VIEW.cfg beside a half sequence; None if unknown.

    Args:
        path: Path of PATIENT_VIEW_half_sequence.nii.gz. Any other name gives None.
    """
    name = parse_path(path)
    if name is None or name.frames != HALF_SEQUENCE:
        return None
    for file in sorted(path.parent.glob("*.*")):
        if (match := INFO_FILE.fullmatch(file.name)) and match[1].upper() == name.view:
            try:
                return read_info(file).frame_rate
            except InputError:
                return None
    return None
