"""What the name of a CAMUS frame tells, as the release writes it and as other tools do."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FRAME = re.compile(
    r"(?P<patient>.+?)[_-](?P<view>2CH|4CH)[_-](?P<phase>ED|ES)(?P<channel>_0000)?", re.IGNORECASE
)


@dataclass(frozen=True)
class FrameName:
    """An end-diastolic or end-systolic frame of a view.

    Attributes:
        patient: as written.
        view: "2CH" or "4CH".
        phase: "ED" or "ES".
    """

    patient: str
    view: str
    phase: str


def parse_frame(stem: str) -> FrameName | None:
    """Read PATIENT_VIEW_PHASE: in any case, with dashes, with nnU-Net's ending _0000.

    Args:
        stem: the file's name without its ending.
    """
    found = _FRAME.fullmatch(stem)
    if found is None:
        return None
    return FrameName(found["patient"], found["view"].upper(), found["phase"].upper())
