"""The text files of a CAMUS release: Info_VIEW.cfg, the split lists, truth.csv."""

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
    """What Info_VIEW.cfg says about one view of a patient.

    Attributes:
        frames: number of the ED and of the ES frame in the half sequence, from 0, by phase.
        quality: the release's word for the image quality, "" if there is none.
        frame_rate: frames per second, None if unknown.
        reference: reference_ef in percent, reference_edv and reference_esv in mL, where known.
    """

    frames: dict[str, int]
    quality: str = ""
    frame_rate: float | None = None
    reference: dict[str, float] = field(default_factory=dict)


def read_info(path: Path) -> Info:
    """Read Info_VIEW.cfg, with keys in any case.

    LVef, LVedv and LVesv are the names that the 2019 challenge gave to EF and the volumes.

    Raises:
        InputError: "path: reason. Remedy."
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
                f"{path}: {phase} is {number!r}. Write the number of the {phase} frame, from 1."
            )
        frames[phase] = int(number) - 1
    reference = {}
    ejection = values.get("ef", values.get("lvef"))
    if ejection is not None:
        reference["reference_ef"] = _number(ejection)
        if not 1 < reference["reference_ef"] <= 100:
            raise InputError(
                f"{path}: EF is {ejection!r}. Write a percentage from 1 to 100, not a fraction, or "
                "remove the line."
            )
    if "lvedv" in values and "lvesv" in values:
        edv, esv = _number(values["lvedv"]), _number(values["lvesv"])
        if not 0 < esv < edv < math.inf:
            raise InputError(
                f"{path}: LVedv is {values['lvedv']!r} and LVesv {values['lvesv']!r}. Write "
                "volumes in mL, LVesv above 0 and below LVedv, or remove the lines."
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
    """Read the true volumes by patient from truth.csv.

    A patient whose volumes cannot be right, or who is named twice, is a problem and left out.
    """
    volumes = ("edv_ml", "esv_ml")
    try:
        table = read_table(path, ["patient", *volumes], numbers=volumes, others=True)
    except InputError as error:
        problems.append(str(error))
        return {}
    truth: dict[str, dict[str, float]] = {}
    table["patient"] = table["patient"].map(nfc)
    times = Counter(table["patient"])
    for patient in (patient for patient in times if times[patient] > 1):
        problems.append(f"{path}: names {patient} more than once. Keep one row.")
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
                "Give volumes in mL, esv_ml above 0 and below edv_ml."
            )
        elif times[patient] == 1:
            truth[patient] = {"reference_edv": edv, "reference_esv": esv}
    return truth


def read_split_lists(
    paths: Iterable[Path], patients: set[str], problems: list[str], notes: list[str]
) -> tuple[dict[str, str] | None, dict[str, str]]:
    """Read the official split lists.

    Args:
        paths: subgroup_{training,validation,testing}.txt, those that exist.
        patients: who has frames.
        problems: faults of the lists are appended.
        notes: how many listed patients are absent is appended.

    Returns:
        The official split by patient, None without lists; and by patient the problem of each one
        whom the lists do not put into exactly one split.
    """
    lists: dict[str, tuple[Path, set[str]]] = {}
    for path in paths:
        match = LIST_FILE.fullmatch(path.name)
        assert match is not None
        name = match[1].lower()
        if name in lists:
            problems.append(f"{path}: is there twice, also as {lists[name][0]}. Keep one.")
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
                f"{path}: names nobody. Write one patient per line, or remove the file."
            )
    if not lists:
        return None, {}

    times = Counter(patient for _, listed in lists.values() for patient in listed)
    unlisted = patients - times.keys()
    for path, listed in lists.values():
        if listed and unlisted and not listed & patients:
            problems.append(
                f"{path}: names nobody who is present (first: {min(listed)!a}). Write the names as "
                f"in the files ({min(unlisted)!a}), or {OTHER_SPLIT}."
            )
        elif absent := listed - patients:
            notes.append(f"{path.name}: {len(absent)} of its {len(listed)} patients are absent")
    folder = next(iter(lists.values()))[0].parent
    unsettled = {
        patient: f"{folder}: {patient} is in {times[patient] or 'no'} lists. "
        f"Put it into exactly one, or {OTHER_SPLIT}."
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
