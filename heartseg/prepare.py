"""Stage `prepare`: read a raw dataset, check every file, write one Parquet file.

python -m heartseg.prepare camus [--skip-bad]
"""

from __future__ import annotations

import argparse
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heartseg.cli import run_command
from heartseg.config.data import CamusDataset, MmodeDataset
from heartseg.config.params import load_params
from heartseg.data.camus import reader as camus
from heartseg.data.camus.sequences import stack_sequences
from heartseg.data.prepared import SPLITS, map_in_order, write_prepared
from heartseg.data.source import PHANTOM_MARKER, Case, Survey, enumerated
from heartseg.data.splits import notes_on_split, split_patients
from heartseg.data.windows import quality as mmode_quality_windows
from heartseg.data.windows import reader as mmode
from heartseg.datasets import DATASETS
from heartseg.errors import BadFilesError, InputError, one_line, printing_notes
from heartseg.metrics.scale import (
    LVSize,
    impossible_size,
    measure_lv,
    scale_disagreement,
    swapped_phases,
)
from heartseg.paths import prepared_path


def prepare(
    dataset: str,
    config: CamusDataset | MmodeDataset,
    path: Path,
    *,
    skip_bad: bool,
    threads: int,
    notes: list[str] | None = None,
) -> dict[str, Any]:
    """Write the prepared dataset, or nothing.

    Args:
        dataset: "camus", "mmode" or "mmode-quality".
        config: the dataset's section of params.yaml.
        path: the Parquet file to write.
        skip_bad: leave bad cases out and list them in the metadata, instead of refusing.
        threads: files read at a time.
        notes: gets what is noticed, also if there is an error in the end.

    Returns:
        The metadata of the file written.

    Raises:
        BadFilesError: with every bad file of the source; nothing was written.
        InputError: the source is no such dataset, no case is left, or no split is possible.
    """
    notes = [] if notes is None else notes
    survey = _survey(dataset, config, notes)
    good, problems = check(dataset, survey.cases, threads, notes)
    problems = list(dict.fromkeys([*survey.problems, *problems]))  # a file can hit several cases
    if problems and not skip_bad:
        raise BadFilesError(dataset, problems)
    if not good:
        raise InputError("\n  - ".join([f"{config.source}: no case is left to prepare", *problems]))
    split_of = split_patients({case.patient for case in good}, config.split, survey.official)
    notes += notes_on_split(split_of, config.split, survey.official, dataset)
    spacing = config.spacing if isinstance(config, CamusDataset) else None
    metadata = {
        "dataset": dataset,
        "labels": {label.name: label.value for label in DATASETS[dataset].labels},
        "units": DATASETS[dataset].units,
        "frames": config.frames if isinstance(config, CamusDataset) else 1,
        "species": "human" if isinstance(config, CamusDataset) else config.species,
        "source": str(config.source),
        "given_spacing": list(spacing) if spacing else None,
        "synthetic": any(config.source.rglob(PHANTOM_MARKER)),
        "split": {
            "method": config.split.method,
            "lists": survey.official is not None,
            "seed": config.split.seed,
        },
        "patients": _counts(split_of.values()),
        "cases": _counts(split_of[case.patient] for case in good),
        "skipped": problems,
        "notes": notes,
    }
    samples = map_in_order(lambda case: case.read(), good, threads)
    try:
        write_prepared(path, samples, split_of, metadata)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({one_line(error)}). "
            "Free space or mend the folder's permissions."
        ) from None
    return metadata


def check(
    dataset: str, cases: Sequence[Case], threads: int, notes: list[str]
) -> tuple[list[Case], list[str]]:
    """Read every case once, to find all that is wrong or odd.

    Args:
        dataset: "camus", "mmode" or "mmode-quality".
        cases: of a survey.
        threads: files read at a time.
        notes: gets what is odd but no fault.

    Returns:
        The cases that can be read, and the problems of the others as "path: reason. Remedy."
    """
    good: list[Case] = []
    problems: list[str] = []
    remarks: list[str] = []
    sizes: dict[str, dict[tuple[str, str], LVSize]] = defaultdict(dict)
    found = map_in_order(lambda case: _check(dataset, case), cases, threads)
    for case, one in zip(cases, found, strict=True):
        problems += one.problems
        remarks += one.notes
        if not one.problems:
            good.append(case)
        if one.size is not None:
            sizes[case.patient][one.image] = one.size
    notes += [*_merged(remarks), *_notes_on_scale(sizes)]
    return good, problems


def _survey(dataset: str, config: CamusDataset | MmodeDataset, notes: list[str]) -> Survey:
    if not os.path.isdir(config.source):
        raise InputError(
            f"{config.source} is no folder. Set datasets.{dataset}.source in params.yaml, or let "
            "`dvc repro` make the phantoms"
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


@dataclass(frozen=True)
class _Found:
    """Of one case: its problems, its notes, and of CAMUS which image it is and its LV's size."""

    problems: list[str]
    notes: Sequence[str] = ()
    image: tuple[str, str] = ("", "")
    size: LVSize | None = None


def _check(dataset: str, case: Case) -> _Found:
    try:
        sample = case.read()
    except BadFilesError as error:
        return _Found(error.problems)
    notes = list(sample.notes)
    if not sample.mask.any() and not DATASETS[dataset].classifies:
        notes.append(f"{case.case_id}: its mask is empty")
    size = measure_lv(sample.mask, sample.spacing) if DATASETS[dataset].apical else None
    return _Found([], notes, (sample.view, sample.phase), size)


def _notes_on_scale(sizes: Mapping[str, Mapping[tuple[str, str], LVSize]]) -> list[str]:
    """Notes on images and patients whose reference masks show that a scale or a name is wrong."""
    impossible = {
        f"{patient}_{view}_{phase}": reason
        for patient, own in sizes.items()
        for (view, phase), size in own.items()
        if (reason := impossible_size(size))
    }
    apart = {
        patient: reason for patient, own in sizes.items() if (reason := scale_disagreement(own))
    }
    swapped = {p: reason for p, own in sizes.items() if (reason := swapped_phases(own))}
    scale, phases = "Check the scale of the files", "Check whether the files are swapped"
    return [
        f"{enumerated(list(found))}: {what} (the first: {next(iter(found.values()))}). {remedy}"
        for what, found, remedy in (
            ("the mask shows a heart of a size that no human has", impossible, scale),
            ("the images of the patient disagree about the scale", apart, scale),
            ("the masks of the patient show an LV that is smaller at ED", swapped, phases),
        )
        if found
    ]


def _merged(notes: Iterable[str]) -> list[str]:
    """The same notes, those on several cases ("CASE: what") that say the same as one."""
    cases: dict[str, list[str]] = defaultdict(list)
    for note in notes:
        case, _, what = note.partition(": ")
        cases[what].append(case)
    return [f"{enumerated(names)}: {what}" for what, names in cases.items()]


def _counts(splits: Iterable[str]) -> dict[str, int]:
    found = Counter(splits)
    return {split: found[split] for split in SPLITS}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="heartseg prepare", description=__doc__)
    parser.add_argument("dataset", choices=tuple(DATASETS))
    parser.add_argument("--skip-bad", action="store_true", help="leave bad cases out and list them")
    arguments = parser.parse_args(argv)
    params = load_params()
    config = params.datasets.of(arguments.dataset)
    path = prepared_path(arguments.dataset)
    with printing_notes() as notes:
        facts = prepare(
            arguments.dataset,
            config,
            path,
            skip_bad=arguments.skip_bad or config.skip_bad,
            threads=os.cpu_count() or 1,
            notes=notes,
        )
    for problem in facts["skipped"]:
        print(f"left out: {problem}")
    print(f"{path}: cases {facts['cases']}, patients {facts['patients']}")


if __name__ == "__main__":
    run_command(main)
