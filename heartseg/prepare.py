"""Stage `prepare`: read a raw dataset, check every file, write one Parquet file.

python -m heartseg.prepare camus [--skip-bad]
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from heartseg.config import CamusDataset, MmodeDataset, load_params
from heartseg.data import camus, mmode, mmode_quality_windows
from heartseg.data.labels import LABELS
from heartseg.data.prepared import SPLITS, map_in_order, write_prepared
from heartseg.data.sequences import stack_sequences
from heartseg.data.source import PHANTOM_MARKER, Case, Survey, notes_on
from heartseg.data.species import MOUSE, SPECIES, Species
from heartseg.data.splits import split_patients
from heartseg.errors import BadFilesError, InputError, one_line, run_command
from heartseg.paths import prepared_path

UNITS = {
    "camus": {
        "spacing": "mm",
        "reference_ef": "percent",
        "reference_edv": "mL",
        "reference_esv": "mL",
    },
    "mmode": {
        "spacing_row": "mm",
        "spacing_col": "s",
        "reference_lvidd": "mm",
        "reference_lvids": "mm",
        "reference_hr": "1/min",
    },
    "mmode-quality": {"spacing_row": "mm", "spacing_col": "s"},
}


def prepare(
    dataset: str,
    config: CamusDataset | MmodeDataset,
    path: Path,
    *,
    skip_bad: bool,
    threads: int,
    species: Species = MOUSE,
) -> dict[str, Any]:
    """Write the prepared dataset, or nothing.

    Args:
        dataset: "camus", "mmode" or "mmode-quality".
        config: the dataset's section of params.yaml.
        path: the Parquet file to write.
        skip_bad: leave bad cases out and list them in the metadata, instead of refusing.
        threads: files read at a time.
        species: whose hearts must fit the scale of M-mode windows.

    Returns:
        The metadata of the file written.

    Raises:
        BadFilesError: with every bad file of the source; nothing was written.
        InputError: the source is no such dataset, no case is left, or no split is possible.
    """
    survey = _survey(dataset, config, species)
    good: list[Case] = []
    problems, notes = list(survey.problems), list(survey.notes)
    checks = map_in_order(_check, survey.cases, threads)
    for case, (faults, remarks) in zip(survey.cases, checks, strict=True):
        problems += faults
        notes += remarks
        if not faults:
            good.append(case)
    problems = list(dict.fromkeys(problems))  # one file's fault can hit several cases
    if problems and not skip_bad:
        raise BadFilesError(dataset, problems)
    if not good:
        raise InputError("\n  - ".join([f"{config.source}: no case is left to prepare", *problems]))

    split_of = split_patients({case.patient for case in good}, config.split, survey.official)
    metadata = {
        "dataset": dataset,
        "labels": {label.name: label.value for label in LABELS[dataset]},
        "units": UNITS[dataset],
        "frames": config.frames if isinstance(config, CamusDataset) else 1,
        "source": str(config.source),
        "synthetic": os.path.isfile(config.source / PHANTOM_MARKER),
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


def _survey(dataset: str, config: CamusDataset | MmodeDataset, species: Species) -> Survey:
    if isinstance(config, MmodeDataset):
        reader = mmode_quality_windows if dataset == "mmode-quality" else mmode
        return reader.survey(config, species)
    survey = camus.survey(config.source, use_lists=config.split.method in ("auto", "official"))
    return survey if config.frames == 1 else stack_sequences(survey, config.frames)


def _check(case: Case) -> tuple[list[str], list[str]]:
    """Problems and notes of a case, found by reading it."""
    try:
        sample = case.read()
    except BadFilesError as error:
        return error.problems, []
    is_label = isinstance(case, mmode_quality_windows.QualityCase)  # a mask of one label
    return [], list(sample.notes) if is_label else notes_on(sample)


def _counts(splits: Iterable[str]) -> dict[str, int]:
    found = Counter(splits)
    return {split: found[split] for split in SPLITS}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="heartseg prepare", description=__doc__)
    parser.add_argument("dataset", choices=tuple(UNITS))
    parser.add_argument("--skip-bad", action="store_true", help="leave bad cases out and list them")
    arguments = parser.parse_args(argv)
    params = load_params()
    config = params.datasets.of(arguments.dataset)
    path = prepared_path(arguments.dataset)
    facts = prepare(
        arguments.dataset,
        config,
        path,
        skip_bad=arguments.skip_bad or config.skip_bad,
        threads=os.cpu_count() or 1,
        species=SPECIES[params.recording.species],
    )
    for note in facts["notes"]:
        print(f"note: {note}")
    for problem in facts["skipped"]:
        print(f"left out: {problem}")
    print(f"{path}: cases {facts['cases']}, patients {facts['patients']}")


if __name__ == "__main__":
    run_command(main)
