"""Read the text files of a CAMUS release: Info_VIEW.cfg, split lists and truth.csv."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from heartseg.data.csv_table import read_number, read_table, read_text, rows_of
from heartseg.datasets.camus import PHASES
from heartseg.errors import InputError
from heartseg.text import nfc

SPLIT_LISTS = {"training": "train", "validation": "val", "testing": "test"}
INFO_FILE = re.compile(r"info_(2ch|4ch)\.cfg", re.IGNORECASE)
LIST_FILE = re.compile(rf"subgroup_({'|'.join(SPLIT_LISTS)})\.txt", re.IGNORECASE)
FRAME_LINES = "lines 'ED: 1' and 'ES: 18' (frame numbers from 1)"
OTHER_SPLIT = "set datasets.camus.split.method to random or kfold in params.yaml"


@dataclass(frozen=True)
class Info:
    """Contents of Info_VIEW.cfg for one view of a patient.

    Attributes:
        frames: Numbers of the ED and ES frames in the half sequence, from 0, by phase.
        quality: Image quality as stated by the release, or "".
        frame_rate: Frames per second; None if unknown.
        reference: Known values of reference_ef in percent, reference_edv and reference_esv in mL.
    """

    frames: dict[str, int]
    quality: str = ""
    frame_rate: float | None = None
    reference: dict[str, float] = field(default_factory=dict)


def read_info(path: Path) -> Info:
    """Read Info_VIEW.cfg. The case of its keys is ignored.

    EF and volumes may have the names LVef, LVedv and LVesv of the 2019 challenge.

    Raises:
        InputError: The file is invalid. The message has the form "path: reason. Remedy."
    """
    parts = [line.partition(":") for line in read_text(path).splitlines() if line.strip()]
    values = {key.strip().lower(): value.strip() for key, _, value in parts}
    if not values:
        raise InputError(f"{path}: is empty. It needs the {FRAME_LINES}.")
    frames = {}
    for phase in PHASES:
        number = values.get(phase.lower())
        if number is None:
            raise InputError(f"{path}: has no line {phase}. It needs the {FRAME_LINES}.")
        if not re.fullmatch("[1-9][0-9]{0,4}", number):
            raise InputError(
                f"{path}: {phase} is {number!r}. Write the number of the {phase} frame, counted "
                "from 1."
            )
        frames[phase] = int(number) - 1
    reference = {}
    ejection = values.get("ef", values.get("lvef"))
    if ejection is not None:
        reference["reference_ef"] = _number(ejection)
        if not 1 < reference["reference_ef"] <= 100:
            raise InputError(
                f"{path}: EF is {ejection!r}. Write a percentage from 1 to 100 instead of a "
                "fraction, or remove the line."
            )
    if "lvedv" in values and "lvesv" in values:
        edv, esv = _number(values["lvedv"]), _number(values["lvesv"])
        if not 0 < esv < edv < math.inf:
            raise InputError(
                f"{path}: LVedv is {values['lvedv']!r} and LVesv is {values['lvesv']!r}. Write "
                "volumes in mL with 0 < LVesv < LVedv, or remove the lines."
            )
        reference |= {"reference_edv": edv, "reference_esv": esv}
    rate = _number(values.get("framerate", ""))
    return Info(
        frames=frames,
        quality=values.get("imagequality", ""),
        frame_rate=rate if 0 < rate < math.inf else None,
        reference=reference,
    )


def read_truth(path: Path, problems: list[str]) -> dict[str, dict[str, float]]:
    """Read the true volumes from truth.csv.

    Args:
        path: Path of truth.csv.
        problems: List to which invalid volumes and repeated patients are appended.

    Returns:
        reference_edv and reference_esv in mL by patient, without the patients with problems.
    """
    volumes = ("edv_ml", "esv_ml")
    try:
        table = read_table(path, ["patient", *volumes], numbers=volumes, ignore_unknown=True)
    except InputError as error:
        problems.append(str(error))
        return {}
    truth: dict[str, dict[str, float]] = {}
    table["patient"] = table["patient"].map(nfc)
    times = Counter(table["patient"])
    for patient in (patient for patient in times if times[patient] > 1):
        problems.append(f"{path}: has several rows for {patient}. Keep one of them.")
    for row in rows_of(table):
        patient = row["patient"]
        try:
            edv, esv = (read_number(row[column], column, patient, path) for column in volumes)
        except InputError as error:
            problems.append(str(error))
            continue
        if math.isnan(edv) and math.isnan(esv):
            continue  # both cells are empty
        if not 0 < esv < edv < math.inf:
            problems.append(
                f"{path}: {patient} has edv_ml {edv:g} and esv_ml {esv:g}. "
                "Write volumes in mL with 0 < esv_ml < edv_ml."
            )
        elif times[patient] == 1:
            truth[patient] = {"reference_edv": edv, "reference_esv": esv}
    return truth


def read_split_lists(
    paths: Iterable[Path], patients: set[str], problems: list[str], notes: list[str]
) -> tuple[dict[str, str] | None, dict[str, str]]:
    """Read the official split lists.

    Args:
        paths: Existing files subgroup_{training,validation,testing}.txt.
        patients: Patients that have frames.
        problems: List to which problems of the lists are appended.
        notes: List to which the numbers of listed patients without frames are appended.

    Returns:
        (official split by patient, problems by patient). The split is None if there are no lists. A
        patient has a problem if it is not in exactly one list.
    """
    lists: dict[str, tuple[Path, set[str]]] = {}
    for path in paths:
        match = LIST_FILE.fullmatch(path.name)
        assert match is not None
        name = match[1].lower()
        if name in lists:
            problems.append(f"{path}: exists twice, also as {lists[name][0]}. Keep one of them.")
            continue
        try:
            listed = set(nfc(read_text(path)).split())
        except InputError as error:
            lists[name] = path, set()
            problems.append(str(error))
            continue
        lists[name] = path, listed
        if not listed:
            problems.append(
                f"{path}: contains no patients. Write one patient per line, or remove the file."
            )
    if not lists:
        return None, {}

    times = Counter(patient for _, listed in lists.values() for patient in listed)
    unlisted = patients - times.keys()
    for path, listed in lists.values():
        if listed and unlisted and not listed & patients:
            problems.append(
                f"{path}: contains none of the patients of the source, but {min(listed)!a} and "
                f"others. Write the names as in the files ({min(unlisted)!a}), or {OTHER_SPLIT}."
            )
        elif absent := listed - patients:
            notes.append(f"{path.name}: {len(absent)} of its {len(listed)} patients have no frames")
    folder = next(iter(lists.values()))[0].parent
    unsettled = {
        patient: f"{folder}: {patient} is in {times[patient] or 'no'} split lists. "
        f"Add it to exactly one, or {OTHER_SPLIT}."
        for patient in patients
        if times[patient] != 1
    }
    official = {
        patient: SPLIT_LISTS[name] for name, (_, listed) in lists.items() for patient in listed
    }
    return official, unsettled


def _number(text: str) -> float:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return math.nan
