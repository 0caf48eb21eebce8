"""Reader for M-mode windows: folders img/ and mask/ with PNG files of equal names.

windows.csv beside them may give, for each window: name, mm_per_row, s_per_column, quality and the
known lvidd_mm, lvids_mm, heart_rate_bpm. Only name is required; an empty cell means unknown.
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from heartseg.config import MmodeDataset
from heartseg.data.labels import Mmode
from heartseg.data.prepared import Sample
from heartseg.data.source import Survey, one_line
from heartseg.errors import BadFilesError, InputError

SPACINGS = ("mm_per_row", "s_per_column")
REFERENCES = {
    "lvidd_mm": "reference_lvidd",
    "lvids_mm": "reference_lvids",
    "heart_rate_bpm": "reference_hr",
}
SHORTEST_SIDE = 16


@dataclass(frozen=True)
class MmodeCase:
    """One window of an M-mode recording.

    Attributes:
        case_id: the file name without its ending.
        patient: the animal.
        frame: 0-based number of the window among those of its animal.
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
        for path in (self.image, self.mask):
            try:
                loaded.append(_read_gray(path))
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
        )


def _read_gray(path: Path) -> np.ndarray:
    """A PNG of 8 bits per channel as uint8 (H, W)."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            mode, size = picture.mode, picture.size
            gray = picture.convert("L") if mode in ("RGB", "RGBA", "P", "LA", "1") else picture
            pixels = np.array(gray)
    except FileNotFoundError:
        raise InputError(
            f"{path}: is missing. Add it, or remove the file of that name in the other folder."
        ) from None
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
    return pixels


# --- what the source holds ----------------------------------------------------------------


def survey(config: MmodeDataset) -> Survey:
    """Find the windows, their animals and what windows.csv says about them.

    Raises:
        InputError: the source is no such dataset, or animal_pattern cannot be used.
    """
    source = config.source
    pattern = _animal_pattern(config.animal_pattern)
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
    images, masks = _pngs(source / "img"), _pngs(source / "mask")
    if not images and not masks:
        raise InputError(f"{source}: img and mask hold no PNG file; put the windows there")

    notes: list[str] = []
    rows: dict[str, dict[str, str]] = {}
    unusable: list[str] = []  # without windows.csv the scale of every window is in doubt
    stems = sorted(images.keys() | masks.keys())
    try:
        rows = _read_sidecar(source / "windows.csv", set(stems), notes)
    except InputError as error:
        unusable.append(str(error))

    seen: Counter[str] = Counter()
    cases = []
    for stem in stems:
        image = images.get(stem, source / "img" / f"{stem}.png")
        mask = masks.get(stem, source / "mask" / f"{stem}.png")
        faults = list(unusable)
        match = pattern.search(stem)
        animal = (match["animal"] or "") if match else ""
        if not animal:
            faults.append(
                f"{image}: animal_pattern {config.animal_pattern!r} finds no animal in its name. "
                "Rename it or change datasets.mmode.animal_pattern."
            )
        row = rows.get(stem, {})
        numbers = _numbers(row, source / "windows.csv", faults)
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
                quality=row.get("quality") or "",
                reference={REFERENCES[k]: v for k, v in numbers.items() if k in REFERENCES},
                problems=tuple(faults),
            )
        )
        seen[animal] += 1
    return Survey(cases, [], notes)


def _animal_pattern(text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise InputError(
            f"datasets.mmode.animal_pattern {text!r} is no regular expression: {error}"
        ) from None
    if "animal" not in pattern.groupindex:
        raise InputError(
            f"datasets.mmode.animal_pattern {text!r} has no group (?P<animal>…); add it"
        )
    return pattern


def _pngs(folder: Path) -> dict[str, Path]:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({one_line(error)}); mend it") from None
    paths = [folder / name for name in names if not name.startswith(".")]
    return {path.stem: path for path in paths if path.suffix.lower() == ".png"}


def _read_sidecar(path: Path, stems: set[str], notes: list[str]) -> dict[str, dict[str, str]]:
    """Rows of windows.csv by window, {} where there is no such file."""
    remedy = "Give it a row per window with a column name, or remove it."
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            listed = list(csv.DictReader(stream, restval=""))
        names = [row["name"].removesuffix(".png") for row in listed]
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}). {remedy}") from None
    if twice := sorted(name for name, times in Counter(names).items() if times > 1):
        raise InputError(f"{path}: names {twice[0]} more than once. {remedy}")
    if not stems & set(names):
        raise InputError(f"{path}: names none of the windows. {remedy}")
    if absent := set(names) - stems:
        notes.append(f"{path.name}: {len(absent)} of its {len(names)} windows are absent")
    if unnamed := stems - set(names):
        notes.append(f"{path.name}: {len(unnamed)} windows have no row, so params.yaml counts")
    return dict(zip(names, listed, strict=True))


def _numbers(row: dict[str, str], path: Path, faults: list[str]) -> dict[str, float]:
    """The positive numbers of a row; an empty cell is left out, anything else is a fault."""
    numbers = {}
    for column in (*SPACINGS, *REFERENCES):
        if text := (row.get(column) or "").strip():
            try:
                value = float(text)
            except ValueError:
                value = math.nan
            if 0 < value < math.inf:
                numbers[column] = value
            else:
                faults.append(
                    f"{path}: {column} of {row['name']} is {text!r}. Give a positive number."
                )
    return numbers
