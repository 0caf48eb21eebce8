"""Segment image files with a registered model: label maps on the files' own grids, and overlays.

NIfTI files may be 2-D or 3-D with time last. Folders are searched for *.nii, *.nii.gz and *.png;
ground truth and earlier output (*_gt, *_seg, *_overlay) are passed over there.

An apical sequence also gets the left ventricle's area and volume over time, as table and figure,
compared with NAME_gt where that stands beside it; sequences.csv has EDV, ESV and EF of each.
"""

from __future__ import annotations

import argparse
import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heartseg.config import PARAMS_FILE
from heartseg.errors import InputError, run_command

if TYPE_CHECKING:
    from heartseg.tracking.registry import Pulled

SUFFIXES = (".nii.gz", ".nii", ".png")
NOT_IMAGES = ("_gt", "_seg", "_overlay", "_curves")
FREE_TEXT = {"descrip", "aux_file", "intent_name", "db_name"}
"""Of a NIfTI header; converters put names and dates there."""
FRAMES_AT_ONCE = 8  # bounds the memory for long sequences
OVERLAY_FRAMES = 6
SEQUENCES = "sequences.csv"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="heartseg predict", description=__doc__)
    parser.add_argument("model", help="for example models:/heartseg-camus@champion")
    parser.add_argument("inputs", nargs="+", type=Path, metavar="FILE_OR_FOLDER")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    options = parser.parse_args(argv)
    if not Path(PARAMS_FILE).exists() and "MLFLOW_TRACKING_URI" not in os.environ:
        raise InputError(
            f"there is no {PARAMS_FILE} here: run from the root of the repository, whose mlflow.db "
            "holds the models, or set MLFLOW_TRACKING_URI"
        )
    files, problems = find_files(options.inputs, options.out)
    if files:
        from heartseg.tracking.mlflow import tracking_uri
        from heartseg.tracking.registry import pull

        pulled = pull(tracking_uri(Path.cwd()), options.model)
    done = 0
    sequences: list[dict[str, Any]] = []
    for file, name in files.items():
        try:
            images = read_images(file)
        except InputError as error:
            problems.append(str(error))
            continue
        place, dataset = options.out / name, pulled.metadata["dataset"]
        try:
            labels, shown = _predict(pulled, images.frames)
        except InputError as error:
            problems.append(f"{file}: {error}")
            continue
        _write(images, labels, shown, place, dataset)
        done += 1
        if dataset == "camus" and len(images.frames) > 1 and images.spacing is not None:
            reference, fault = _read_reference(file, images.frames.shape)
            problems += fault
            row = _write_curves(file, images.spacing, labels, shown, reference, place)
            sequences.append({"sequence": str(name)} | row)
    print(f"{done} file(s) segmented into {options.out}")
    if sequences:
        _write_sequences(sequences, options.out / SEQUENCES)
    if problems:
        listing = "\n".join(f"  - {problem}" for problem in problems)
        raise InputError(f"{len(problems)} input(s) could not be segmented:\n{listing}")


def find_files(inputs: Sequence[Path], out: Path) -> tuple[dict[Path, Path], list[str]]:
    """The files to segment, and their places under the output folder, without suffix.

    Output keeps the inputs' paths below the folder that all of them share, so that equal names
    in different folders stay apart; equal names with different suffixes keep the suffix.

    Returns:
        Place by file, and a line for each input that is missing or of no use.
    """
    folders, files, problems = [], [], []
    for given in (Path(os.path.abspath(path)) for path in inputs):
        if given.is_dir():
            inside = [path for path in sorted(given.rglob("*")) if _is_image(path, out)]
            if not inside:
                problems.append(f"{given}: no {', '.join(SUFFIXES)} file in this folder")
            folders.append(given)
            files += inside
        elif not given.exists():
            problems.append(f"{given}: does not exist")
        elif _suffix(given) is None:
            problems.append(f"{given}: is neither NIfTI nor PNG; convert it")
        else:
            folders.append(given.parent)
            files.append(given)
    files = list(dict.fromkeys(files))
    base = Path(os.path.commonpath(folders)) if folders else Path()
    places = {file: file.relative_to(base).with_name(_stem(file)) for file in files}
    taken = Counter(places.values())
    for file, place in places.items():
        if taken[place] > 1:
            places[file] = place.with_name(file.name)
    return places, problems


def _is_image(path: Path, out: Path) -> bool:
    if _suffix(path) is None or not path.is_file():
        return False
    is_output = path.is_relative_to(os.path.abspath(out))
    return not is_output and not _stem(path).endswith(NOT_IMAGES)


def _suffix(path: Path) -> str | None:
    return next((end for end in SUFFIXES if path.name.lower().endswith(end)), None)


def _stem(path: Path) -> str:
    return path.name[: -len(_suffix(path) or "")]


@dataclass(frozen=True)
class Images:
    """What a file holds.

    Attributes:
        frames: (T, H, W) as stored, from `read_images` uint8; T = 1 for a single image.
        spacing: (row, column) in mm, None where the file does not say.
        save: writes label maps uint8 (T, H, W) in the form of the input, given the path of
            the output without suffix.
    """

    frames: np.ndarray
    spacing: tuple[float, float] | None
    save: Callable[[np.ndarray, Path], None]


def read_images(path: Path) -> Images:
    """Read a NIfTI or PNG file.

    Raises:
        InputError: "path: reason. Remedy."
    """
    from heartseg.data.nifti import to_uint8
    from heartseg.data.source import one_line

    try:
        images = _read_png(path) if _suffix(path) == ".png" else _read_nifti(path)
        return replace(images, frames=to_uint8(images.frames))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # nibabel, zlib and Pillow raise many kinds on a broken file
        reason = f"cannot be read ({one_line(error)}); copy or export it again"
        raise InputError(f"{path}: {reason}") from None


def _read_png(path: Path) -> Images:
    from PIL import Image

    from heartseg.data.mmode import check_size

    with Image.open(path, formats=["PNG"]) as image:
        check_size(image.size)
        deep = image.mode.startswith(("I", "F"))  # more than 8 bits, which "L" would cut off
        pixels = np.array(image if deep else image.convert("L"))

    def save(labels: np.ndarray, place: Path) -> None:
        Image.fromarray(labels[0]).save(f"{place}_seg.png")

    return Images(pixels[None], None, save)


def _read_nifti(path: Path) -> Images:
    import nibabel as nib

    from heartseg.data.nifti import MOST_PIXELS, read_bytes

    data = read_bytes(path)
    is_second = 540 in (int.from_bytes(data[:4], order) for order in ("little", "big"))
    image = (nib.Nifti2Image if is_second else nib.Nifti1Image).from_bytes(data)
    if math.prod(image.shape) > MOST_PIXELS:
        raise InputError(f"has shape {image.shape}, more pixels than can be; export it again")
    pixels = np.asanyarray(image.dataobj)
    if pixels.dtype.fields is not None:
        raise InputError("holds colours; export gray values")
    if pixels.ndim < 2 or 0 in pixels.shape or sum(size > 1 for size in pixels.shape[2:]) > 1:
        raise InputError(f"has shape {pixels.shape}; wanted are 2-D images, or 3-D with time last")

    def save(labels: np.ndarray, place: Path) -> None:
        header = image.header.copy()
        for field in FREE_TEXT & set(header.keys()):
            header[field] = b""
        header.extensions.clear()  # may hold a whole DICOM header
        header.set_data_dtype(np.uint8)
        header.set_slope_inter(1, 0)
        header["cal_min"], header["cal_max"] = 0, 0  # the display range of the gray values
        stored = np.ascontiguousarray(labels.transpose(2, 1, 0))
        if stored.size == pixels.size:  # not only the ends of a sequence
            stored = stored.reshape(pixels.shape)
        nib.save(type(image)(stored, image.affine, header), f"{place}_seg.nii.gz")

    # stored as (lateral W, depth H, time...), wanted as (T, H, W)
    frames = pixels.reshape(*pixels.shape[:2], -1).transpose(2, 1, 0)
    column, row = (float(size) for size in image.header.get_zooms()[:2])
    spacing = (row, column) if row > 0 and column > 0 else None
    return Images(frames, spacing, save)


def _predict(pulled: Pulled, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Label maps uint8 (K, H, W) of frames uint8 (T, H, W), and which frames they are, from 0.

    A model that takes whole half sequences segments their two ends, any other each frame.

    Raises:
        InputError: the model takes sequences and this is a single image.
    """
    from heartseg.models.inputs import frames_of

    channels = pulled.metadata["recipe"]["model"]["in_channels"]
    stacked = frames_of(channels)
    if stacked > 1:
        from heartseg.data.sequences import resample_frames

        if len(frames) < 2:
            raise InputError("the model takes sequences; give a 3-D NIfTI file, time last")
        forward = resample_frames(frames, stacked)
        return pulled.predict(np.stack([forward, forward[::-1]])), np.array([0, len(frames) - 1])
    batch = np.repeat(frames[:, None], channels, axis=1)
    starts = range(0, len(batch), FRAMES_AT_ONCE)
    labels = [pulled.predict(batch[i : i + FRAMES_AT_ONCE]) for i in starts]
    return np.concatenate(labels), np.arange(len(frames))


def _write(
    images: Images, labels: np.ndarray, numbers: np.ndarray, place: Path, dataset: str
) -> None:
    """The label maps of these frames, and one overlay picture of up to OVERLAY_FRAMES of them."""
    from heartseg.report import figures

    place.parent.mkdir(parents=True, exist_ok=True)
    images.save(labels, place)
    count, last = len(images.frames), len(labels) - 1
    chosen = np.unique(np.linspace(0, last, min(last + 1, OVERLAY_FRAMES)).round().astype(int))
    shown = numbers[chosen]
    overlay = figures.overlay_grid(
        images.frames[shown],
        [None] * len(shown),
        labels[chosen],
        dataset,
        [place.name if count == 1 else f"{place.name} frame {i + 1}/{count}" for i in shown],
        None if images.spacing is None else [images.spacing] * len(shown),
    )
    figures.save(overlay, f"{place}_overlay.png")


# --- sequences ----------------------------------------------------------------------------


def _read_reference(file: Path, shape: tuple[int, ...]) -> tuple[np.ndarray | None, list[str]]:
    """Label maps (T, H, W) of NAME_gt beside a file, None where there is none; what is wrong."""
    path = file.with_name(f"{_stem(file)}_gt{_suffix(file)}")
    if not path.exists():
        return None, []
    try:
        reference = read_images(path).frames
    except InputError as error:
        return None, [str(error)]
    if reference.shape != shape:
        return None, [f"{path}: is {reference.shape}, its image {shape}; export it on that grid"]
    return reference, []


def _write_curves(
    file: Path,
    spacing: tuple[float, float],
    labels: np.ndarray,
    numbers: np.ndarray,
    reference: np.ndarray | None,
    place: Path,
) -> dict[str, float]:
    """NAME_curves.csv and NAME_curves.png; returns the sequence's row of sequences.csv."""
    from heartseg.data.sequences import frame_rate
    from heartseg.metrics.sequence import lv_curves, summarise_curves
    from heartseg.report.curves import curve_figure
    from heartseg.report.figures import save

    curves = lv_curves(
        labels,
        spacing,
        reference=None if reference is None else reference[numbers],
        numbers=numbers + 1,
        frame_rate=frame_rate(file),
    )
    curves.to_csv(f"{place}_curves.csv", index=False)
    save(curve_figure(curves, place.name), f"{place}_curves.png")
    return summarise_curves(curves)


def _write_sequences(rows: list[dict[str, Any]], path: Path) -> None:
    import pandas as pd

    table = pd.DataFrame(rows)
    table.to_csv(path, index=False)
    print(f"{path}: LV volumes of {len(table)} sequence(s) by area-length")
    for row in rows:
        print(
            f"  {row['sequence']}: EDV {row['edv_ml']:.1f} mL, ESV {row['esv_ml']:.1f} mL, "
            f"EF {row['ef_percent']:.1f} %"
        )


if __name__ == "__main__":
    run_command(main)
