"""Read M-mode windows that are labelled good or bad in the column quality of windows.csv.

The output of `heartseg windows` is such a source, including its folders bad/ and unannotated/.
Masks are not needed. Windows without a label are not used.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from heartseg.config.data import MmodeDataset
from heartseg.data.prepared import Sample
from heartseg.data.source import Survey
from heartseg.data.species import SPECIES, Scale, Species, check_scale
from heartseg.data.strips.pictures import FORMATS, find_pictures, read_picture
from heartseg.data.windows.reader import compile_pattern, natural_order
from heartseg.data.windows.table import find_mixed_recordings, read_numbers, read_windows_csv
from heartseg.datasets.mmode_quality import Quality
from heartseg.errors import BadFilesError, InputError

FOLDERS = (".", "bad", "unannotated")
"""Folders of a source that contain a folder img."""
LABELS = {label.name.lower(): label for label in Quality}
"""Labels by their text in windows.csv, good or bad."""


@dataclass(frozen=True)
class QualityCase:
    """One labelled window.

    Attributes:
        case_id: Name of the image without suffix.
        patient: The animal.
        frame: Number of the window among those of its animal, from 0.
        image: Path of the file.
        scale: Scale of the pixels.
        species: Species that the scale is checked against; None for no check.
        quality: "good" or "bad".
        problems: Problems found before the image is opened.
    """

    case_id: str
    patient: str
    frame: int
    image: Path
    scale: Scale
    species: Species | None
    quality: str
    problems: tuple[str, ...]

    def read(self) -> Sample:
        """Read the image as uint8 (H, W), with a mask that has the label in every pixel.

        Raises:
            BadFilesError: Files are invalid. It lists every problem of the case.
        """
        problems = list(self.problems)
        image: np.ndarray | None = None
        notes: list[str] = []
        try:
            image, notes = read_picture(self.image)
            if self.species is not None:
                problems += check_scale(self.scale, image.shape, None, self.species)
        except InputError as error:
            problems.append(str(error))
        if problems or image is None:
            raise BadFilesError("mmode-quality", problems)
        return Sample(
            case_id=self.case_id,
            patient=self.patient,
            view="",
            phase="",
            frame=self.frame,
            image=image,
            mask=np.full(image.shape, LABELS[self.quality], np.uint8),
            spacing=self.scale.spacing,
            quality=self.quality,
            notes=tuple(f"{self.case_id}: its image {clause}" for clause in notes),
        )


def survey(config: MmodeDataset, *, any_scale: bool = False) -> Survey:
    """Find the labelled windows of a source and their animals.

    Args:
        config: Settings of the dataset from params.yaml.
        any_scale: Whether to skip the check of the scale against the species.

    Raises:
        InputError: The source is not such a dataset, or animal_pattern is invalid.
    """
    species = None if any_scale else SPECIES[config.species]
    pattern = compile_pattern(config.animal_pattern, "mmode-quality")
    source = config.source
    folders = [source / name for name in FOLDERS if (source / name / "img").is_dir()]
    if not folders:
        raise InputError(
            f"{source}: has no folder img. Put the windows ({FORMATS}) there and windows.csv "
            "beside it, or set datasets.mmode-quality.source to the output of `heartseg windows`."
        )
    notes: list[str] = []
    problems: list[str] = []
    cases: dict[str, QualityCase] = {}
    counts: Counter[str] = Counter()
    unlabelled = 0
    for folder in folders:
        table = folder / "windows.csv"
        images = find_pictures(folder / "img", notes)
        try:
            rows = read_windows_csv(table, set(images), notes)
        except InputError as error:
            problems.append(str(error))
            continue
        mixed = find_mixed_recordings(rows, table)
        for stem in sorted(images, key=natural_order):
            row, image = rows.get(stem, {}), images[stem][0]
            label = row.get("quality", "").lower()
            if not label:
                unlabelled += 1
                continue
            faults = [mixed[stem]] if stem in mixed else []
            if label not in LABELS:
                faults.append(
                    f"{table}: quality of {stem} is {label!r}. Write good or bad, or leave the "
                    "cell empty."
                )
            for other in [*images[stem][1:], *([cases[stem].image] if stem in cases else [])]:
                faults.append(f"{other}: is a second file of the name {stem}. Remove one of them.")
            match = pattern.search(stem)
            animal = row.get("animal", "") or ((match["animal"] or "") if match else "")
            if not animal:
                faults.append(f"{image}: its animal is unknown. Write it into {table}.")
            _, scale = read_numbers(row, table, "mmode-quality", config, faults)
            cases[stem] = QualityCase(
                stem, animal, counts[animal], image, scale, species, label, tuple(faults)
            )
            counts[animal] += 1
    if unlabelled:
        notes.append(f"{unlabelled} window(s) have no quality label and are not used")
    if not cases and not problems:
        raise InputError(
            f"{source}: no window has a quality label. Write good or bad into the column quality "
            "of windows.csv"
        )
    return Survey([cases[stem] for stem in sorted(cases)], problems, notes)
