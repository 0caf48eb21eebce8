"""Reader for M-mode windows labelled good or bad: img/ and, in windows.csv, the column quality.

What `heartseg windows` leaves is such a source: its folders bad/ and unannotated/ are read too.
Masks are not needed. Windows without a label are left out, with a note.
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
from heartseg.data.strips.pictures import KINDS, find_pictures, read_picture
from heartseg.data.windows.reader import compile_pattern, natural_order
from heartseg.data.windows.table import read_numbers, read_windows_csv, torn_recordings
from heartseg.datasets.mmode_quality import Quality
from heartseg.errors import BadFilesError, InputError

FOLDERS = (".", "bad", "unannotated")
"""Of a source, as `heartseg windows` makes them."""
LABELS = {label.name.lower(): label for label in Quality}
"""By the words in windows.csv: good and bad."""


@dataclass(frozen=True)
class QualityCase:
    """One labelled window.

    Attributes:
        case_id: the file name without its ending.
        patient: the animal.
        frame: 0-based number of the window among those of its animal.
        scale: of its pixels.
        species: whose heart must fit that scale; None if any scale will do.
        quality: "good" or "bad".
        problems: known before the image is opened.
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
        """The image, uint8 (H, W), and a label map with the window's label in every pixel.

        Raises:
            BadFilesError: with every problem of the case.
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
    """Find the labelled windows and their animals.

    Args:
        config: the section of params.yaml.
        any_scale: do not check that the dataset's species fits the scale.

    Raises:
        InputError: the source is no such dataset, or animal_pattern cannot be used.
    """
    species = None if any_scale else SPECIES[config.species]
    pattern = compile_pattern(config.animal_pattern, "mmode-quality")
    source = config.source
    folders = [source / name for name in FOLDERS if (source / name / "img").is_dir()]
    if not folders:
        raise InputError(
            f"{source}: has no folder img. Put the windows ({KINDS}) there and windows.csv beside "
            "it, or set datasets.mmode-quality.source to what `heartseg windows` has left."
        )
    notes: list[str] = []
    problems: list[str] = []
    cases: dict[str, QualityCase] = {}
    seen: Counter[str] = Counter()
    unlabelled = 0
    for folder in folders:
        table = folder / "windows.csv"
        images = find_pictures(folder / "img", notes)
        try:
            rows = read_windows_csv(table, set(images), notes)
        except InputError as error:
            problems.append(str(error))
            continue
        torn = torn_recordings(rows, table)
        for stem in sorted(images, key=natural_order):
            row, image = rows.get(stem, {}), images[stem][0]
            label = row.get("quality", "").lower()
            if not label:
                unlabelled += 1
                continue
            faults = [torn[stem]] if stem in torn else []
            if label not in LABELS:
                faults.append(
                    f"{table}: the quality of {stem} is {label!r}. Write good or bad, or "
                    "leave it empty."
                )
            for other in [*images[stem][1:], *([cases[stem].image] if stem in cases else [])]:
                faults.append(f"{other}: is another file of the name {stem}. Remove one of them.")
            match = pattern.search(stem)
            animal = row.get("animal", "") or ((match["animal"] or "") if match else "")
            if not animal:
                faults.append(f"{image}: has no animal. Name it in {table}.")
            _, scale = read_numbers(row, table, "mmode-quality", config, faults)
            cases[stem] = QualityCase(
                stem, animal, seen[animal], image, scale, species, label, tuple(faults)
            )
            seen[animal] += 1
    if unlabelled:
        notes.append(f"{unlabelled} window(s) have no label of quality and are left out")
    if not cases and not problems:
        raise InputError(
            f"{source}: no window has a label of quality. Write good or bad into the column "
            "quality of windows.csv"
        )
    return Survey([cases[stem] for stem in sorted(cases)], problems, notes)
