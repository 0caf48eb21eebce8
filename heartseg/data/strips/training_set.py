"""Sort the windows of M-mode recordings by their use, and write them as a training set."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from PIL import Image

from heartseg.config.data import Windows
from heartseg.data.strips.cut_windows import Window, cut_windows, window_size
from heartseg.data.strips.quality import BAD, GOOD, QualityLabels
from heartseg.data.strips.recordings import Strip
from heartseg.errors import catch_write_errors
from heartseg.text import csv_text

COLUMNS = ("name", "animal", "recording", "mm_per_row", "s_per_column", "quality")
PLACE_COLUMNS = ("first_row", "first_column", "size")
TO_TRAIN, UNANNOTATED, OF_BAD_QUALITY = ".", "unannotated", "bad"
FOLDERS = (TO_TRAIN, UNANNOTATED, OF_BAD_QUALITY)

WindowsByFolder = dict[str, list[tuple[Window, str]]]
"""Windows with their quality ("" if unknown), by the folder into which they are written."""


def sort_windows(
    strip: Strip,
    labels: QualityLabels,
    config: Windows,
    rates: tuple[float, float],
    notes: list[str],
) -> WindowsByFolder:
    """Cut the windows of a strip and sort them by folder.

    Training windows have traces in every column. If the strip has quality labels, their columns or
    the windows themselves must be labelled good. Windows labelled bad have a folder of their own.

    Args:
        strip: The strip.
        labels: Quality labels of all strips.
        config: Section `windows` of params.yaml.
        rates: Slowest and fastest plausible heart rate in beats per minute.
        notes: List to which a summary of the strip is appended.
    """
    size, why = window_size(strip, config, rates)
    width = strip.image.shape[1]
    spans = labels.columns(strip.name, width, strip.spacing[1])
    annotated = strip.annotated
    wanted = annotated if annotated.any() else ~annotated
    if spans is not None:
        wanted = wanted & spans[0]
    folder = TO_TRAIN if annotated.any() else UNANNOTATED
    result: WindowsByFolder = {name: [] for name in FOLDERS}
    windows = cut_windows(strip, wanted, size, config.overlap)
    names = [window.name for window in windows]
    unlabelled = 0
    for window in windows:
        label = labels.label_of(window.name, names)
        if label is None:
            result[folder].append((window, GOOD if spans is not None else ""))
        elif label == GOOD:
            result[folder].append((window, label))
        elif label == BAD:
            result[OF_BAD_QUALITY].append((window, label))
        else:
            unlabelled += 1
    if spans is not None:
        bad = cut_windows(strip, spans[1], size, config.overlap)
        result[OF_BAD_QUALITY] += [(window, BAD) for window in bad]
    kept, left_out = len(result[folder]), len(result[OF_BAD_QUALITY])
    notes.append(
        f"{strip.name}: {width} columns, {kept} window(s) of {size} x {size} ({why})"
        + (f", {left_out} of bad quality" if left_out else "")
        + (f", {unlabelled} not used because they have no label" if unlabelled else "")
    )
    return result


def write_windows(
    folder: Path, windows: WindowsByFolder, strips: Sequence[Strip], marker: Path | None
) -> None:
    """Write windows, and strips of DICOM files as images, to a folder, or nothing on failure.

    Args:
        folder: New or empty folder.
        windows: Windows of all strips.
        strips: All strips.
        marker: File that marks the recordings as phantoms, which is copied; None if there is none.

    Raises:
        InputError: The folder cannot be written.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        with catch_write_errors(folder):
            temporary.mkdir(parents=True)
            for part, found in windows.items():
                for window, _ in found:
                    pictures = {"img": window.image}
                    if part == TO_TRAIN:
                        pictures["mask"] = window.mask
                    for kind, pixels in pictures.items():
                        (temporary / part / kind).mkdir(parents=True, exist_ok=True)
                        Image.fromarray(pixels).save(temporary / part / kind / f"{window.name}.png")
                if found:
                    _write_csv(temporary / part / "windows.csv", found)
            for strip in strips:
                if strip.from_dicom:
                    (temporary / "strips").mkdir(parents=True, exist_ok=True)
                    Image.fromarray(strip.image).save(temporary / "strips" / f"{strip.name}.png")
            if marker is not None:
                shutil.copyfile(marker, temporary / marker.name)
            if folder.is_dir():
                folder.rmdir()  # empty
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_csv(path: Path, windows: list[tuple[Window, str]]) -> None:
    rows = []
    for window, quality in windows:
        strip = window.strip
        known = (window.name, strip.animal, strip.recording, *strip.spacing, quality)
        rows.append([*known, window.row, window.column, window.size])
    table = pd.DataFrame(rows, columns=[*COLUMNS, *PLACE_COLUMNS])
    path.write_text(csv_text(table), encoding="utf-8")
