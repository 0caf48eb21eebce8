"""Reader for M-mode windows: folders img/ and mask/ with PNG files of equal names, and
windows.csv beside them where more is known (`heartseg.data.mmode_table`).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from heartseg.config import MmodeDataset
from heartseg.data.labels import Mmode
from heartseg.data.mmode_table import (
    REFERENCES,
    read_numbers,
    read_windows_csv,
    torn_recordings,
)
from heartseg.data.prepared import Sample
from heartseg.data.source import Survey
from heartseg.errors import BadFilesError, InputError, one_line

SHORTEST_SIDE = 16
MOST_PIXELS = 1 << 26
"""Of a picture; a PNG file of a few bytes can claim to hold any number."""


@dataclass(frozen=True)
class MmodeCase:
    """One window of an M-mode recording.

    Attributes:
        case_id: the file name without its ending.
        patient: the animal.
        frame: 0-based number of the window among those of its animal, w2 before w10.
        spacing: (mm per row, s per column).
        problems: known before the images are opened.
    """

    case_id: str
    patient: str
    frame: int
    image: Path
    mask: Path
    spacing: tuple[float, float]
    quality: str = ""
    reference: dict[str, float] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def read(self) -> Sample:
        """Image and mask as uint8 (H, W); the mask is binary: more than half of its maximum.

        Raises:
            BadFilesError: with every problem of the case.
        """
        problems = list(self.problems)
        loaded = []
        for path, read in ((self.image, read_gray), (self.mask, read_mask)):
            try:
                loaded.append(read(path))
            except InputError as error:
                problems.append(str(error))
        if len(loaded) == 2 and loaded[0].shape != loaded[1].shape:
            problems.append(
                f"{self.mask}: has {loaded[1].shape} pixels where the image has "
                f"{loaded[0].shape}. Export it at the image's size."
            )
        if problems:
            raise BadFilesError("mmode", problems)
        image, mask = loaded
        inside = mask > mask.max() / 2
        notes: tuple[str, ...] = ()
        if (levels := len(np.unique(mask))) > 2:
            notes = (
                f"{self.case_id}: its mask has {levels} gray levels; "
                "those above half of the maximum count as LV",
            )
        return Sample(
            case_id=self.case_id,
            patient=self.patient,
            view="",
            phase="",
            frame=self.frame,
            image=image,
            mask=np.where(inside, Mmode.LV, Mmode.BACKGROUND).astype(np.uint8),
            spacing=self.spacing,
            quality=self.quality,
            reference=self.reference,
            notes=notes,
        )


def read_gray(path: Path) -> np.ndarray:
    """A PNG of 8 bits per channel as uint8 (H, W)."""
    return _read(path)[0]


def read_mask(path: Path) -> np.ndarray:
    """As `read_gray`; what is drawn in the alpha channel would be lost, so it is refused."""
    pixels, transparent = _read(path)
    if transparent:
        raise InputError(
            f"{path}: is transparent in parts, so its mask may be in the alpha channel. "
            "Export it as 8-bit gray without transparency."
        )
    return pixels


def _read(path: Path) -> tuple[np.ndarray, bool]:
    """Pixels, and whether only a part of them is transparent."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            mode, size = picture.mode, picture.size
            check_size(size)
            gray = picture.convert("L") if mode in ("RGB", "RGBA", "P", "LA", "1") else picture
            pixels = np.array(gray)
            transparent = False
            if picture.has_transparency_data:
                lowest, highest = picture.convert("RGBA").getchannel("A").getextrema()
                transparent = lowest != highest
    except FileNotFoundError:
        raise InputError(
            f"{path}: is missing. Add it, or remove the file of that name in the other folder."
        ) from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # Pillow raises many kinds on a broken file
        raise InputError(
            f"{path}: cannot be read ({one_line(error)}). Export it again as PNG."
        ) from None
    if pixels.dtype != np.uint8:
        raise InputError(f"{path}: has the mode {mode}, not 8 bits. Export it as 8-bit gray.")
    if min(size) < SHORTEST_SIDE:
        raise InputError(
            f"{path}: has {size[1]} x {size[0]} pixels, too few for a window. Export it again."
        )
    return pixels, transparent


def check_size(size: tuple[int, int]) -> None:
    """Before pixels are decoded: InputError where (columns, rows) are too many."""
    columns, rows = size
    if columns * rows > MOST_PIXELS:
        raise InputError(f"has {rows} x {columns} pixels, too many. Cut it into parts.")


# --- what the source holds ----------------------------------------------------------------


def survey(config: MmodeDataset) -> Survey:
    """Find the windows, their animals and what windows.csv says about them.

    Raises:
        InputError: the source is no such dataset, or animal_pattern cannot be used.
    """
    source = config.source
    pattern = compile_pattern(config.animal_pattern, "mmode")
    if not os.path.isdir(source):
        raise InputError(
            f"{source} is no folder; set datasets.mmode.source in params.yaml "
            "(or let `dvc repro` make the phantoms)"
        )
    for name in ("img", "mask"):
        if not os.path.isdir(source / name):
            raise InputError(
                f"{source} has no folder {name}; "
                "put PNG files of equal names into its folders img and mask"
            )
    notes: list[str] = []
    images, masks = find_pngs(source / "img", notes), find_pngs(source / "mask", notes)
    if not images and not masks:
        raise InputError(f"{source}: img and mask hold no PNG file; put the windows there")

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
        numbers = read_numbers(row, source / "windows.csv", faults)
        cases.append(
            MmodeCase(
                case_id=stem,
                patient=animal,
                frame=seen[animal],
                image=image,
                mask=mask,
                spacing=(
                    numbers.get("mm_per_row", config.mm_per_row),
                    numbers.get("s_per_column", config.s_per_column),
                ),
                quality=row.get("quality", ""),
                reference={REFERENCES[k]: v for k, v in numbers.items() if k in REFERENCES},
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


def find_pngs(folder: Path, notes: list[str]) -> dict[str, list[Path]]:
    """PNG files by name without ending; more than one where a.png and a.PNG are there."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({one_line(error)}); mend it") from None
    paths = [folder / name for name in names if not name.startswith(".")]
    found: dict[str, list[Path]] = {}
    other = []
    for path in paths:
        if path.suffix.lower() == ".png":
            found.setdefault(path.stem, []).append(path)
        else:
            other.append(path.name)
    if other:
        more = f" and {len(other) - 5} more" if len(other) > 5 else ""
        notes.append(f"{folder.name}: not used: {', '.join(other[:5])}{more}")
    return found
