"""Read M-mode windows: images in img/, masks of the same names in mask/, and windows.csv.

windows.csv is optional (see `heartseg.data.windows.table`).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from heartseg.config.data import MmodeDataset
from heartseg.data.prepared import Sample
from heartseg.data.source import Survey, shorten_list
from heartseg.data.species import (
    SPECIES,
    Scale,
    Species,
    check_scale,
    describe_unusual_size,
    lv_height,
)
from heartseg.data.strips.pictures import (
    FORMATS,
    find_pictures,
    list_files,
    read_mask,
    read_picture,
)
from heartseg.data.windows.table import find_mixed_recordings, read_numbers, read_windows_csv
from heartseg.datasets.mmode import Mmode
from heartseg.errors import BadFilesError, InputError


@dataclass(frozen=True)
class MmodeCase:
    """One window of an M-mode recording.

    Attributes:
        case_id: Name of the image without suffix.
        patient: The animal.
        frame: Number of the window among those of its animal, from 0, in natural order.
        image, mask: Paths of the files.
        scale: Scale of the pixels.
        species: Species that the scale is checked against; None for no check.
        quality: Image quality from windows.csv, or "".
        reference: Known clinical values (see `Sample`).
        problems: Problems found before the images are opened.
    """

    case_id: str
    patient: str
    frame: int
    image: Path
    mask: Path
    scale: Scale
    species: Species | None = None
    quality: str = ""
    reference: dict[str, float] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def read(self) -> Sample:
        """Read image and mask as uint8 (H, W). Mask pixels above half of their maximum are the LV.

        Raises:
            BadFilesError: Files are invalid. It lists every problem of the case.
        """
        problems = list(self.problems)
        notes: list[str] = []
        loaded = []
        for path, read, what in (
            (self.image, read_picture, "image"),
            (self.mask, read_mask, "mask"),
        ):
            try:
                if not os.path.lexists(path):
                    raise InputError(
                        f"{path}: is missing. Add it, or remove the file of the same name in the "
                        "other folder."
                    )
                pixels, file_notes = read(path)
                loaded.append(pixels)
                notes += [f"{self.case_id}: its {what} {clause}" for clause in file_notes]
            except InputError as error:
                problems.append(str(error))
        if len(loaded) == 2:
            image, inside = loaded
            if image.shape != inside.shape:
                sizes = [" x ".join(map(str, one.shape)) for one in (inside, image)]
                problems.append(
                    f"{self.mask}: has {sizes[0]} pixels (rows x columns), but its image has "
                    f"{sizes[1]}. Export the mask at the size of the image."
                )
            elif self.species is not None:
                height = lv_height(inside)
                problems += check_scale(self.scale, image.shape, height, self.species)
                if note := describe_unusual_size(self.scale, height, self.species):
                    notes.append(f"{self.case_id}: {note}")
            if inside.shape == image.shape and min(inside[0].mean(), inside[-1].mean()) > 0.5:
                notes.append(
                    f"{self.case_id}: its mask reaches the upper and the lower edge. Check whether "
                    "it is inverted"
                )
        if problems:
            raise BadFilesError("mmode", problems)
        return Sample(
            case_id=self.case_id,
            patient=self.patient,
            view="",
            phase="",
            frame=self.frame,
            image=image,
            mask=np.where(inside, Mmode.LV, Mmode.BACKGROUND).astype(np.uint8),
            spacing=self.scale.spacing,
            quality=self.quality,
            reference=self.reference,
            notes=tuple(notes),
        )


# --- contents of the source ---------------------------------------------------------------


def survey(config: MmodeDataset, *, any_scale: bool = False) -> Survey:
    """Find the windows of a source, their animals and their rows in windows.csv.

    Args:
        config: Settings of the dataset from params.yaml.
        any_scale: Whether to skip the check of the scale against the species.

    Raises:
        InputError: The source is not such a dataset, or animal_pattern is invalid.
    """
    species = None if any_scale else SPECIES[config.species]
    source = config.source
    pattern = compile_pattern(config.animal_pattern, "mmode")
    if not os.path.isdir(source):
        raise InputError(
            f"{source}: is not a folder. Set datasets.mmode.source in params.yaml to a folder that "
            "contains img and mask, or run `dvc repro` to create phantoms."
        )
    for name in ("img", "mask"):
        if not os.path.isdir(source / name):
            found = [found.name for found in list_files(source) if found.is_dir()]
            raise InputError(
                f"{source}: has no folder {name} (found: {shorten_list(found) or 'none'}). Put "
                f"images ({FORMATS}) into img, and masks of the same names into mask. To cut "
                "recordings into windows, run `heartseg windows`."
            )
    notes: list[str] = []
    images, masks = find_pictures(source / "img", notes), find_pictures(source / "mask", notes)
    if not images and not masks:
        raise InputError(
            f"{source}: img and mask contain no {FORMATS} files. Put the windows there."
            + "".join(f"\n  - {note}" for note in notes)
        )
    if images and masks and not images.keys() & masks.keys():
        raise InputError(
            f"{source}: no image has a mask of the same name: img contains "
            f"{shorten_list([*images])}, mask contains {shorten_list([*masks])}. Rename the files "
            "in mask."
        )

    rows: dict[str, dict[str, str]] = {}
    table_problems: list[str] = []  # if windows.csv is invalid, every window has this problem
    stems = sorted(images.keys() | masks.keys())
    try:
        rows = read_windows_csv(source / "windows.csv", set(stems), notes)
    except InputError as error:
        table_problems.append(str(error))

    mixed = find_mixed_recordings(rows, source / "windows.csv")
    counts: Counter[str] = Counter()
    cases = []
    for stem in sorted(stems, key=natural_order):
        image = images.get(stem, [source / "img" / f"{stem}.png"])[0]
        mask = masks.get(stem, [source / "mask" / f"{stem}.png"])[0]
        faults = list(table_problems)
        for second in images.get(stem, [])[1:] + masks.get(stem, [])[1:]:
            faults.append(f"{second}: is a second file of the name {stem}. Remove one of them.")
        if stem in mixed:
            faults.append(mixed[stem])
        row = rows.get(stem, {})
        match = pattern.search(stem)
        animal = row.get("animal", "") or ((match["animal"] or "") if match else "")
        if not animal:
            faults.append(
                f"{image}: animal_pattern {config.animal_pattern!r} finds no animal in its name. "
                "Rename the file, change datasets.mmode.animal_pattern, or write the animal into "
                "windows.csv."
            )
        numbers, scale = read_numbers(row, source / "windows.csv", "mmode", config, faults)
        cases.append(
            MmodeCase(
                case_id=stem,
                patient=animal,
                frame=counts[animal],
                image=image,
                mask=mask,
                scale=scale,
                species=species,
                quality=row.get("quality", ""),
                reference=numbers,
                problems=tuple(faults),
            )
        )
        counts[animal] += 1
    return Survey(sorted(cases, key=lambda case: case.case_id), [], notes)


def natural_order(name: str) -> list[str | int]:
    """Return a sort key by which w2 comes before w10."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]


def compile_pattern(text: str, dataset: str) -> re.Pattern[str]:
    """Compile the animal_pattern of a dataset.

    Raises:
        InputError: It is not a regular expression with a group `animal`.
    """
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise InputError(
            f"datasets.{dataset}.animal_pattern: {text!r} is not a regular expression ({error}). "
            "Correct it in params.yaml"
        ) from None
    if "animal" not in pattern.groupindex:
        raise InputError(
            f"datasets.{dataset}.animal_pattern: {text!r} has no group (?P<animal>…). Add it in "
            "params.yaml"
        )
    return pattern
