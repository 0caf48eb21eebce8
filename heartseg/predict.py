"""Segment image files with a registered model: label maps on the files' own grids, and overlays.

NIfTI files may be 2-D or 3-D with time last. Folders are searched for *.nii, *.nii.gz and *.png;
ground truth and earlier output (*_gt, *_seg, *_overlay) are passed over there.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from heartseg.config import PARAMS_FILE
from heartseg.errors import InputError, run_command

if TYPE_CHECKING:
    from heartseg.tracking.registry import Pulled

SUFFIXES = (".nii.gz", ".nii", ".png")
NOT_IMAGES = ("_gt", "_seg", "_overlay")
FRAMES_AT_ONCE = 8  # bounds the memory for long sequences
OVERLAY_FRAMES = 6


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
    for file, name in files.items():
        try:
            images = read_images(file)
        except InputError as error:
            problems.append(str(error))
            continue
        labels = _predict(pulled, images.frames)
        _write(images, labels, options.out / name, pulled.metadata["dataset"])
        done += 1
    print(f"{done} file(s) segmented into {options.out}")
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

    with Image.open(path) as image:
        deep = image.mode.startswith(("I", "F"))  # more than 8 bits, which "L" would cut off
        pixels = np.array(image if deep else image.convert("L"))

    def save(labels: np.ndarray, place: Path) -> None:
        Image.fromarray(labels[0]).save(f"{place}_seg.png")

    return Images(pixels[None], None, save)


def _read_nifti(path: Path) -> Images:
    import nibabel as nib

    image = nib.load(path)
    data = np.asanyarray(image.dataobj)
    if data.dtype.fields is not None:
        raise InputError("holds colours; export gray values")
    if data.ndim < 2 or 0 in data.shape or sum(size > 1 for size in data.shape[2:]) > 1:
        raise InputError(f"has shape {data.shape}; wanted are 2-D images, or 3-D with time last")

    def save(labels: np.ndarray, place: Path) -> None:
        header = image.header.copy()
        header.set_data_dtype(np.uint8)
        header.set_slope_inter(1, 0)
        header["cal_min"], header["cal_max"] = 0, 0  # the display range of the gray values
        stored = np.ascontiguousarray(labels.transpose(2, 1, 0)).reshape(data.shape)
        nib.save(type(image)(stored, image.affine, header), f"{place}_seg.nii.gz")

    # stored as (lateral W, depth H, time...), wanted as (T, H, W)
    frames = data.reshape(*data.shape[:2], -1).transpose(2, 1, 0)
    column, row = (float(size) for size in image.header.get_zooms()[:2])
    spacing = (row, column) if row > 0 and column > 0 else None
    return Images(frames, spacing, save)


def _predict(pulled: Pulled, frames: np.ndarray) -> np.ndarray:
    """Label maps uint8 (T, H, W) of frames uint8 (T, H, W)."""
    channels = pulled.metadata["recipe"]["model"]["in_channels"]
    batch = np.repeat(frames[:, None], channels, axis=1)
    starts = range(0, len(batch), FRAMES_AT_ONCE)
    return np.concatenate([pulled.predict(batch[i : i + FRAMES_AT_ONCE]) for i in starts])


def _write(images: Images, labels: np.ndarray, place: Path, dataset: str) -> None:
    """The label maps, and one overlay picture of up to OVERLAY_FRAMES frames."""
    from heartseg.report import figures

    place.parent.mkdir(parents=True, exist_ok=True)
    images.save(labels, place)
    count = len(labels)
    shown = np.unique(np.linspace(0, count - 1, min(count, OVERLAY_FRAMES)).round().astype(int))
    overlay = figures.overlay_grid(
        images.frames[shown],
        [None] * len(shown),
        labels[shown],
        dataset,
        [place.name if count == 1 else f"{place.name} frame {i + 1}/{count}" for i in shown],
        None if images.spacing is None else [images.spacing] * len(shown),
    )
    figures.save(overlay, f"{place}_overlay.png")


if __name__ == "__main__":
    run_command(main)
