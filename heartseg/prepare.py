"""Check every file of a raw dataset and write the dataset to one Parquet file.

The source is datasets.DATASET.source of params.yaml. If a file is wrong, all wrong files are listed
and nothing is written.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from heartseg.cli import make_app, paragraphs, run_app, run_command
from heartseg.config.data import CamusDataset, MmodeDataset
from heartseg.config.params import load_params
from heartseg.config.recipe import DatasetName
from heartseg.datasets import DATASETS
from heartseg.errors import BadFilesError, InputError, printing_notes, unwritable
from heartseg.paths import prepared_path

app = make_app()


@app.command(name="prepare", help=paragraphs(__doc__))
def prepare_command(
    dataset: Annotated[DatasetName, typer.Argument(metavar="DATASET", help="Dataset to prepare.")],
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave bad cases out and list them.")
    ] = False,
) -> None:
    config = load_params().datasets.of(dataset)
    path = prepared_path(dataset)
    with printing_notes() as notes:
        metadata = prepare(
            dataset,
            config,
            path,
            skip_bad=skip_bad or config.skip_bad,
            threads=os.cpu_count() or 1,
            notes=notes,
        )
    for problem in metadata["skipped"]:
        print(f"left out: {problem}")
    print(f"{path}: cases {metadata['cases']}, patients {metadata['patients']}")


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
        config: Section of the dataset in params.yaml.
        path: Parquet file to write.
        skip_bad: Whether to leave bad cases out and list them in the metadata.
        threads: Number of files read at the same time.
        notes: List to which notes are added, even if an error is raised later.

    Returns:
        The metadata of the file.

    Raises:
        BadFilesError: Files of the source are bad. The error lists all of them.
        InputError: The source is not such a dataset, no case is left, or no split is possible.
    """
    from heartseg.checks.dataset import check_cases, survey_dataset
    from heartseg.data.prepared import map_in_order, write_prepared
    from heartseg.data.source import PHANTOM_MARKER
    from heartseg.data.splits import notes_on_split, split_patients

    notes = [] if notes is None else notes
    survey = survey_dataset(dataset, config, notes)
    good, problems = check_cases(dataset, survey.cases, threads, notes)
    problems = list(dict.fromkeys([*survey.problems, *problems]))  # cases can share a bad file
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
        "patients": _count_by_split(split_of.values()),
        "cases": _count_by_split(split_of[case.patient] for case in good),
        "skipped": problems,
        "notes": notes,
    }
    samples = map_in_order(lambda case: case.read(), good, threads)
    try:
        write_prepared(path, samples, split_of, metadata)
    except OSError as error:
        raise unwritable(path, error) from None
    return metadata


def _count_by_split(splits: Iterable[str]) -> dict[str, int]:
    from heartseg.data.prepared import SPLITS

    counts = Counter(splits)
    return {split: counts[split] for split in SPLITS}


main = partial(run_app, app, "heartseg prepare")

if __name__ == "__main__":
    run_command(main)
