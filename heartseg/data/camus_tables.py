"""The text files of a CAMUS release: Info_VIEW.cfg, the split lists, truth.csv."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from pathlib import Path

from heartseg.data.nifti import RESTORE
from heartseg.errors import InputError, one_line

VIEWS = ("2CH", "4CH")
PHASES = ("ED", "ES")
SPLIT_LISTS = {"training": "train", "validation": "val", "testing": "test"}


def read_info(path: Path) -> dict[str, str]:
    """Info_VIEW.cfg as a mapping; ED and ES are whole numbers from 1, EF is a percentage.

    Raises:
        InputError: "path: reason. Remedy."
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: is missing. {RESTORE}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}). {RESTORE}") from None
    parts = [line.partition(":") for line in lines if line.strip()]
    info = {key.strip(): value.strip() for key, _, value in parts}
    if not info:
        raise InputError(f"{path}: is empty. {RESTORE}")
    for phase in PHASES:
        if not re.fullmatch("[1-9][0-9]{0,4}", info.get(phase, "")):
            raise InputError(
                f"{path}: {phase} is {info.get(phase)!r}, not a frame number from 1. {RESTORE}"
            )
    if "EF" in info and not 0 <= _number(info["EF"]) <= 100:
        raise InputError(f"{path}: EF is {info['EF']!r}, not a percentage. {RESTORE}")
    return info


def read_truth(path: Path, problems: list[str]) -> dict[str, dict[str, float]]:
    """True volumes by patient, {} where the source has no truth.csv.

    A patient whose volumes cannot be right, or who is named twice, is a problem and left out.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = [
                (row["patient"].strip(), float(row["edv_ml"]), float(row["esv_ml"]))
                for row in csv.DictReader(stream, restval="")
            ]
    except FileNotFoundError:
        return {}
    except (OSError, csv.Error, KeyError, ValueError) as error:
        problems.append(
            f"{path}: cannot be read ({one_line(error)}). "
            "Give the columns patient, edv_ml, esv_ml, or remove the file."
        )
        return {}
    truth: dict[str, dict[str, float]] = {}
    times = Counter(patient for patient, _, _ in rows)
    for patient in (patient for patient in times if times[patient] > 1):
        problems.append(f"{path}: names {patient} more than once. Keep one row.")
    for patient, edv, esv in rows:
        if not 0 < esv < edv < math.inf:
            problems.append(
                f"{path}: {patient} has edv_ml {edv:g} and esv_ml {esv:g}. "
                "Give volumes in mL, esv_ml above 0 and below edv_ml."
            )
        elif times[patient] == 1:
            truth[patient] = {"reference_edv": edv, "reference_esv": esv}
    return truth


def read_split_lists(
    folder: Path, patients: set[str], problems: list[str], notes: list[str]
) -> tuple[dict[str, str] | None, dict[str, str]]:
    """The official split by patient, and the problem of each patient that it does not settle."""
    lists: dict[str, set[str]] = {}
    for name in SPLIT_LISTS:
        path = folder / f"subgroup_{name}.txt"
        try:
            lists[name] = set(path.read_text(encoding="utf-8-sig").split())
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            lists[name] = set()
            problems.append(f"{path}: cannot be read ({one_line(error)}). {RESTORE}")
            continue
        if not lists[name]:
            problems.append(f"{path}: names nobody. Restore it from the release or remove it.")
    if not lists:
        return None, {}

    times = Counter(patient for listed in lists.values() for patient in listed)
    unlisted = patients - times.keys()
    for name, listed in lists.items():
        if listed and unlisted and not listed & patients:
            problems.append(
                f"{folder / f'subgroup_{name}.txt'}: names nobody who is present "
                f"(first: {min(listed)!a}). {RESTORE}"
            )
        elif absent := listed - patients:
            notes.append(
                f"subgroup_{name}.txt: {len(absent)} of its {len(listed)} patients are absent"
            )
    remedy = "Put it into exactly one, or set split.method to random or kfold."
    unsettled = {
        patient: f"{folder}: {patient} is in {times[patient] or 'no'} lists. {remedy}"
        for patient in patients
        if times[patient] != 1
    }
    official = {patient: SPLIT_LISTS[name] for name, listed in lists.items() for patient in listed}
    return official, unsettled


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
