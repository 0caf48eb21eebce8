"""Write the synthetic datasets: python -m heartseg.phantom camus|mmode|mmode-quality|recordings."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from heartseg.cli import run_command
from heartseg.config.data import Phantoms
from heartseg.config.params import load_params
from heartseg.data.phantoms.camus import make_patient, make_view, write_camus
from heartseg.data.phantoms.mmode import make_animal, write_mmode
from heartseg.data.phantoms.mmode_quality import write_quality
from heartseg.data.phantoms.recording import write_recordings
from heartseg.datasets.camus import VIEWS
from heartseg.errors import InputError, one_line
from heartseg.paths import phantom_dir

PICTURE_ROWS = 4  # patients, and animals beside them
COLORS = {2: "tab:green", 3: "tab:cyan", 1: "tab:red", 255: "tab:red"}  # by value in the mask


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="heartseg phantom", description=__doc__)
    parser.add_argument(
        "dataset",
        nargs="?",
        choices=("camus", "mmode", "mmode-quality", "recordings"),
        help="what to write",
    )
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="draw examples of both datasets into a PNG"
    )
    arguments = parser.parse_args(argv)
    if arguments.dataset is None and arguments.picture is None:
        parser.error("name a dataset, or give --picture FILE")
    phantoms = load_params().phantoms
    if arguments.dataset:
        folder = write_phantoms(arguments.dataset, phantoms, phantom_dir(arguments.dataset))
        print(f"wrote {folder}")
    if arguments.picture:
        draw_picture(phantoms, arguments.picture)
        print(f"wrote {arguments.picture}")


def write_phantoms(dataset: str, phantoms: Phantoms, folder: Path) -> Path:
    """Write a dataset's phantoms to `folder`, whole or not at all, in place of what was there.

    Raises:
        InputError: `folder` exists and is no folder, or cannot be written.
    """
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise InputError(f"{folder} is not a folder; move it away, the phantoms go there")
    workers = os.cpu_count() or 1
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    replaced = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        temporary.mkdir(parents=True)
        if dataset == "camus":
            write_camus(temporary, phantoms.camus, workers)
        elif dataset == "mmode":
            write_mmode(temporary, phantoms.mmode, workers)
        elif dataset == "mmode-quality":
            write_quality(temporary, phantoms.mmode_quality, workers)
        else:
            write_recordings(temporary, phantoms.mmode.seed)
        if folder.exists():
            folder.rename(replaced)
        temporary.rename(folder)
    except OSError as error:
        raise _cannot_write(folder, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)
    return folder


def _cannot_write(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path}: cannot be written ({one_line(error)}). "
        "Free space or mend the folder's permissions."
    )


def draw_picture(phantoms: Phantoms, path: Path) -> None:
    """PNG for the README: patients in rows (4CH and 2CH, each with its contours beside it, at
    ED), and an animal's window with its mask's contour at the end of every row.

    Raises:
        InputError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 2.6 * PICTURE_ROWS), layout="constrained", facecolor="black")
    ratios = [1.35] * 4 + [1] * 2
    axes = figure.subplots(PICTURE_ROWS, 6, width_ratios=ratios, squeeze=False)
    for row in range(PICTURE_ROWS):
        patient = make_patient(phantoms.camus.seed, row + 1)
        window, strip, mask = make_animal(phantoms.mmode, row + 1)[0]
        panels = [(strip, mask, window.name, 1.0)]
        aspect = patient.sector.spacing[1] / patient.sector.spacing[0]
        for view in VIEWS:
            image, labels = make_view(patient, view).frame(0, 0.0)
            title = f"{patient.name} {view}, EF {patient.ef:.0f} %, {patient.quality}"
            panels.insert(0, (image.T, labels.T, title, aspect))
        for column, (image, labels, title, ratio) in enumerate(panels):
            for axis in axes[row, 2 * column : 2 * column + 2]:
                axis.imshow(image, cmap="gray", vmin=0, vmax=255, aspect=ratio)
                axis.axis("off")
            axes[row, 2 * column].set_title(title, color="white", fontsize=9)
            for label, color in COLORS.items():
                if label in labels:
                    axes[row, 2 * column + 1].contour(labels == label, [0.5], colors=color)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=80, facecolor="black", metadata={"Software": None})
    except OSError as error:
        raise _cannot_write(path, error) from None


if __name__ == "__main__":
    run_command(main)
