"""Reader for M-mode windows: folders img/ and mask/ with pictures of equal names, and
windows.csv beside them where more is known (`heartseg.data.windows.table`).
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
from heartseg.data.source import Survey
from heartseg.data.species import SPECIES, Scale, Species, check_scale, odd_size, tallest
from heartseg.data.strips.pictures import (
    KINDS,
    find_pictures,
    list_files,
    read_mask,
    read_picture,
    some,
)
from heartseg.data.windows.table import read_numbers, read_windows_csv, torn_recordings
from heartseg.datasets.mmode import Mmode
from heartseg.errors import BadFilesError, InputError


@dataclass(frozen=True)
class MmodeCase:
    """One window of an M-mode recording.

    Attributes:
        case_id: the file name without its ending.
        patient: the animal.
        frame: 0-based number of the window among those of its animal, w2 before w10.
        scale: of its pixels.
        species: whose heart must fit that scale; None if any scale will do.
        problems: known before the images are opened.
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
        """Image and mask as uint8 (H, W); the mask is binary: more than half of its maximum.

        Raises:
            BadFilesError: with every problem of the case.
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
                        f"{path}: is missing. Add it, or remove the file of that name in the "
                        "other folder."
                    )
                pixels, odd = read(path)
                loaded.append(pixels)
                notes += [f"{self.case_id}: its {what} {clause}" for clause in odd]
            except InputError as error:
                problems.append(str(error))
        if len(loaded) == 2:
            image, inside = loaded
            if image.shape != inside.shape:
                sizes = [" x ".join(map(str, one.shape)) for one in (inside, image)]
                problems.append(
                    f"{self.mask}: has {sizes[0]} pixels (rows x columns), its image {sizes[1]}. "
                    "Export the mask at the image's size."
                )
            elif self.species is not None:
                tall = tallest(inside)
                problems += check_scale(self.scale, image.shape, tall, self.species)
                if doubt := odd_size(self.scale, tall, self.species):
                    notes.append(f"{self.case_id}: {doubt}")
            if inside.shape == image.shape and min(inside[0].mean(), inside[-1].mean()) > 0.5:
                notes.append(f"{self.case_id}: its mask reaches both edges; is it inverted?")
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


# --- what the source holds ----------------------------------------------------------------


def survey(config: MmodeDataset, *, any_scale: bool = False) -> Survey:
    """Find the windows, their animals and what windows.csv says about them.

    Args:
        config: the section of params.yaml.
        any_scale: do not check that the dataset's species fits the scale.

    Raises:
        InputError: the source is no such dataset, or animal_pattern cannot be used.
    """
    species = None if any_scale else SPECIES[config.species]
    source = config.source
    pattern = compile_pattern(config.animal_pattern, "mmode")
    if not os.path.isdir(source):
        raise InputError(
            f"{source}: is no folder. Name one with img and mask: datasets.mmode.source in "
            "params.yaml for `prepare`, which `dvc repro` fills with phantoms."
        )
    for name in ("img", "mask"):
        if not os.path.isdir(source / name):
            found = [found.name for found in list_files(source) if found.is_dir()]
            raise InputError(
                f"{source}: has no folder {name} (found: {some(found) or 'none'}). Put pictures "
                f"({KINDS}) of equal names into its folders img and mask; recordings are cut into "
                "them by `heartseg windows`."
            )
    notes: list[str] = []
    images, masks = find_pictures(source / "img", notes), find_pictures(source / "mask", notes)
    if not images and not masks:
        raise InputError(
            f"{source}: img and mask hold no {KINDS} file. Put the windows there."
            + "".join(f"\n  - {note}" for note in notes)
        )
    if images and masks and not images.keys() & masks.keys():
        raise InputError(
            f"{source}: no picture of img has a mask of the same name: img has {some([*images])}, "
            f"mask has {some([*masks])}. Rename the files of mask."
        )

    rows: dict[str, dict[str, str]] = {}
    unusable: list[str] = []  # without windows.csv the scale of every window is in doubt
    stems = sorted(images.keys() | masks.keys())
    try:
        rows = read_windows_csv(source / "windows.csv", set(stems), notes)
    except InputError as error:
        unusable.append(str(error))

    torn = torn_recordings(rows, source / "windows.csv")
    seen: Counter[str] = Counter()
    cases = []
    for stem in sorted(stems, key=natural_order):
        image = images.get(stem, [source / "img" / f"{stem}.png"])[0]
        mask = masks.get(stem, [source / "mask" / f"{stem}.png"])[0]
        faults = list(unusable)
        for second in images.get(stem, [])[1:] + masks.get(stem, [])[1:]:
            faults.append(f"{second}: is another file of the name {stem}. Remove one of them.")
        if stem in torn:
            faults.append(torn[stem])
        row = rows.get(stem, {})
        match = pattern.search(stem)
        animal = row.get("animal", "") or ((match["animal"] or "") if match else "")
        if not animal:
            faults.append(
                f"{image}: animal_pattern {config.animal_pattern!r} finds no animal in its name. "
                "Rename it, change datasets.mmode.animal_pattern, or name it in windows.csv."
            )
        numbers, scale = read_numbers(row, source / "windows.csv", "mmode", config, faults)
        cases.append(
            MmodeCase(
                case_id=stem,
                patient=animal,
                frame=seen[animal],
                image=image,
                mask=mask,
                scale=scale,
                species=species,
                quality=row.get("quality", ""),
                reference=numbers,
                problems=tuple(faults),
            )
        )
        seen[animal] += 1
    return Survey(sorted(cases, key=lambda case: case.case_id), [], notes)


def natural_order(name: str) -> list[str | int]:
    """Sorting key that counts: w2 comes before w10."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]


def compile_pattern(text: str, dataset: str) -> re.Pattern[str]:
    """The animal_pattern of a dataset.

    Raises:
        InputError: it is no regular expression with a group `animal`.
    """
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise InputError(
            f"datasets.{dataset}.animal_pattern {text!r} is no regular expression: {error}"
        ) from None
    if "animal" not in pattern.groupindex:
        raise InputError(
            f"datasets.{dataset}.animal_pattern {text!r} has no group (?P<animal>…); add it"
        )
    return pattern
