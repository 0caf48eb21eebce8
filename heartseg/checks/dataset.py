"""Checks of a raw dataset: every file is read once before anything is written."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from heartseg.config.data import CamusDataset, MmodeDataset
from heartseg.data.camus import reader as camus
from heartseg.data.camus.sequences import stack_sequences
from heartseg.data.prepared import map_in_order
from heartseg.data.source import Case, Survey, shorten_list
from heartseg.data.windows import quality as mmode_quality_windows
from heartseg.data.windows import reader as mmode
from heartseg.datasets import DATASETS
from heartseg.errors import BadFilesError, InputError
from heartseg.metrics.pixel_scale import (
    LVSize,
    impossible_size,
    measure_lv,
    scale_disagreement,
    swapped_phases,
)


def survey_dataset(dataset: str, config: CamusDataset | MmodeDataset, notes: list[str]) -> Survey:
    """List the cases of the raw dataset that params.yaml names.

    Args:
        dataset: "camus", "mmode" or "mmode-quality".
        config: Section of the dataset in params.yaml.
        notes: List to which notes are added.

    Raises:
        InputError: The source is not a folder, or is not such a dataset.
    """
    if not os.path.isdir(config.source):
        raise InputError(
            f"{config.source} is not a folder. Set datasets.{dataset}.source in params.yaml, or "
            "run `dvc repro` to write the phantoms there"
        )
    if isinstance(config, MmodeDataset):
        reader = mmode_quality_windows if DATASETS[dataset].classifies else mmode
        survey = reader.survey(config)
    else:
        use_lists = config.split.method in ("auto", "official")
        survey = camus.survey(config.source, use_lists, config.spacing)
    notes += survey.notes
    if isinstance(config, CamusDataset) and config.frames > 1:
        survey = stack_sequences(survey, config.frames, notes)
    return survey


def check_cases(
    dataset: str, cases: Sequence[Case], threads: int, notes: list[str]
) -> tuple[list[Case], list[str]]:
    """Read every case once, to find everything that is wrong or unusual.

    Args:
        dataset: "camus", "mmode" or "mmode-quality".
        cases: Cases of a survey.
        threads: Number of files read at the same time.
        notes: List to which notes on unusual cases are added.

    Returns:
        The cases that can be read, and the problems of the others as "path: reason. Remedy."
    """
    good: list[Case] = []
    problems: list[str] = []
    case_notes: list[str] = []
    sizes: dict[str, dict[tuple[str, str], LVSize]] = defaultdict(dict)
    results = map_in_order(lambda case: _check_case(dataset, case), cases, threads)
    for case, result in zip(cases, results, strict=True):
        problems += result.problems
        case_notes += result.notes
        if not result.problems:
            good.append(case)
        if result.size is not None:
            sizes[case.patient][result.image] = result.size
    notes += [*_merge_notes(case_notes), *_scale_notes(sizes)]
    return good, problems


@dataclass(frozen=True)
class _Result:
    """Result of reading a case.

    Attributes:
        problems: One line per bad file.
        notes: What is unusual, as "CASE: text".
        image: View and phase (CAMUS).
        size: Size of the LV in the mask (CAMUS).
    """

    problems: list[str]
    notes: Sequence[str] = ()
    image: tuple[str, str] = ("", "")
    size: LVSize | None = None


def _check_case(dataset: str, case: Case) -> _Result:
    try:
        sample = case.read()
    except BadFilesError as error:
        return _Result(error.problems)
    notes = list(sample.notes)
    if not sample.mask.any() and not DATASETS[dataset].classifies:
        notes.append(f"{case.case_id}: its mask is empty")
    size = measure_lv(sample.mask, sample.spacing) if DATASETS[dataset].apical else None
    return _Result([], notes, (sample.view, sample.phase), size)


def _scale_notes(sizes: Mapping[str, Mapping[tuple[str, str], LVSize]]) -> list[str]:
    """Return notes on reference masks that show a wrong scale or a wrong file name."""
    impossible = {
        f"{patient}_{view}_{phase}": reason
        for patient, own in sizes.items()
        for (view, phase), size in own.items()
        if (reason := impossible_size(size))
    }
    differing = {p: reason for p, own in sizes.items() if (reason := scale_disagreement(own))}
    swapped = {p: reason for p, own in sizes.items() if (reason := swapped_phases(own))}
    scale, phases = "Check the scale of the files", "Check whether the files are swapped"
    return [
        f"{shorten_list(list(found))}: {what} (the first: {next(iter(found.values()))}). {remedy}"
        for what, found, remedy in (
            ("the mask shows a heart of a size that no human has", impossible, scale),
            ("the images of the patient disagree about the scale", differing, scale),
            ("the masks of the patient show an LV that is smaller at ED", swapped, phases),
        )
        if found
    ]


def _merge_notes(notes: Iterable[str]) -> list[str]:
    """Merge notes on several cases ("CASE: text") that have the same text."""
    cases: dict[str, list[str]] = defaultdict(list)
    for note in notes:
        case, _, text = note.partition(": ")
        cases[text].append(case)
    return [f"{shorten_list(names)}: {text}" for text, names in cases.items()]
