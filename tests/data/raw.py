"""Small raw datasets with known content, for the tests of readers and of prepare."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

WIDTH, DEPTH = 40, 24
SPACING = (5.0, 3.0)  # (row, column) in mm: depth, lateral; an LV 70 mm long
INFO = "ED: 1\nES: 18\nNbFrame: 18\nImageQuality: Good\nEF: 54\nFrameRate: 48.4\n"
AFFINE = np.diag([-SPACING[1], -SPACING[0], 1.0, 1.0])


def echo(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return image and mask uint8 (H, W) without symmetry."""
    image = np.random.default_rng(seed).integers(0, 200, (DEPTH, WIDTH), dtype=np.uint8)
    image[:3, -5:] = 255
    mask = np.zeros((DEPTH, WIDTH), np.uint8)
    mask[2:20, 4:14] = 2
    mask[4:18, 6:12] = 1
    mask[20:23, 7:10] = 3
    return image, mask


def write_nifti(
    path: Path, pixels: np.ndarray, affine: np.ndarray = AFFINE, third_axis: bool = False
) -> None:
    """Write pixels (H, W) like the release, as (lateral, depth) or (lateral, depth, 1)."""
    stored = pixels.T[..., None] if third_axis else pixels.T
    image = nib.Nifti1Image(stored, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def write_patient(source: Path, patient: str, ending: str = ".nii.gz") -> Path:
    """Write both views and phases of a patient, and return the folder."""
    folder = source / "database_nifti" / patient
    folder.mkdir(parents=True)
    for number, view in enumerate(("2CH", "4CH")):
        (folder / f"Info_{view}.cfg").write_text(INFO)
        for phase in ("ED", "ES"):
            image, mask = echo(10 * number + len(phase) + (phase == "ES"))
            write_nifti(folder / f"{patient}_{view}_{phase}{ending}", image)
            write_nifti(folder / f"{patient}_{view}_{phase}_gt{ending}", mask)
    return folder


def write_list(source: Path, name: str, patients: list[str]) -> None:
    """Write an official split list."""
    folder = source / "database_split"
    folder.mkdir(exist_ok=True)
    (folder / f"subgroup_{name}.txt").write_text("".join(f"{patient}\n" for patient in patients))


def write_release(source: Path, patients: int = 4) -> Path:
    """Write a release. Its last patient is for testing, the second last for validation."""
    names = [f"patient{number:04d}" for number in range(1, patients + 1)]
    for name in names:
        write_patient(source, name)
    write_list(source, "training", names[:-2])
    write_list(source, "validation", names[-2:-1])
    write_list(source, "testing", names[-1:])
    return source


def write_windows(source: Path, animals: int = 3, windows: int = 2) -> Path:
    """Write M-mode windows a0_w0.png, ... to img/ and mask/ (0 and 255), without windows.csv."""
    for name in ("img", "mask"):
        (source / name).mkdir(parents=True)
    for animal in range(animals):
        for window in range(windows):
            image, mask = echo(10 * animal + window)
            name = f"a{animal}_w{window}.png"
            Image.fromarray(image).save(source / "img" / name)
            Image.fromarray(np.where(mask == 1, 255, 0).astype(np.uint8)).save(
                source / "mask" / name
            )
    return source
