"""Layouts of real CAMUS patients, created from a folder with `database_nifti`.

Each function changes such a folder in place. It is made from the release that HEARTSEG_CAMUS_ROOT
names.
"""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np

from tests.examples import real_data

PATIENTS = [f"patient000{number}" for number in range(1, 5)]
FIRST = PATIENTS[0]
UNLABELLED = PATIENTS[3]
SPACING = (0.308, 0.308)


def write_release(folder: Path, patients: list[str]) -> Path:
    """Write a release of these patients without split lists and sequences."""
    database = real_data("HEARTSEG_CAMUS_ROOT") / "database_nifti"
    sequences = shutil.ignore_patterns("*half_sequence*")
    for patient in patients:
        shutil.copytree(database / patient, folder / "database_nifti" / patient, ignore=sequences)
    return folder


def files(source: Path, patient: str = "*", mask: bool | None = None) -> list[Path]:
    found = sorted(source.glob(f"database_nifti/{patient}/*.nii.gz"))
    return [path for path in found if mask is None or ("_gt" in path.name) == mask]


def pixels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def another_orientation(source: Path) -> None:
    for path in files(source, FIRST):
        image = nib.Nifti1Image(pixels(path)[..., None], nib.load(path).affine)
        nib.save(nib.as_closest_canonical(image), path)


def depth_first(source: Path) -> None:
    for path in files(source, FIRST):
        affine = nib.load(path).affine
        image = nib.Nifti1Image(pixels(path).T, affine[:, [1, 0, 2, 3]])
        nib.save(image, path)


def three_gray_channels(source: Path) -> None:
    for path in files(source, mask=False):
        colours = np.stack([pixels(path)] * 3, -1)
        nib.save(nib.Nifti1Image(colours, nib.load(path).affine), path)


def masks_as_scaled_integers(source: Path) -> None:
    for path in files(source, FIRST, mask=True):
        image = nib.Nifti1Image(pixels(path).astype(float), nib.load(path).affine)
        image.header.set_data_dtype("int16")
        nib.save(image, path)


def nifti2(source: Path) -> None:
    for path in files(source, FIRST):
        nib.save(nib.Nifti2Image(pixels(path), nib.load(path).affine), path)


def not_gzipped(source: Path) -> None:
    for path in files(source, FIRST):
        path.write_bytes(gzip.decompress(path.read_bytes()))


def dashes(source: Path) -> None:
    for path in files(source):
        path.rename(path.with_name(path.name.replace("_", "-", 1)))


def upper_case_endings(source: Path) -> None:
    for path in files(source):
        path.rename(path.with_name(path.name.replace(".nii.gz", ".NII.GZ")))


def apple_double(source: Path) -> None:
    for path in files(source):
        (path.parent / f"._{path.name}").write_bytes(b"\0\5\x16\7" + bytes(200))


def unzipped_twice(source: Path) -> None:
    (source / "CAMUS_public").mkdir()
    (source / "database_nifti").rename(source / "CAMUS_public/database_nifti")


def challenge(source: Path) -> None:
    for folder in sorted((source / "database_nifti").iterdir()):
        place = source / ("testing" if folder.name == UNLABELLED else "training") / folder.name
        place.parent.mkdir(exist_ok=True)
        folder.rename(place)
    for path in (source / "testing").rglob("*_gt*"):
        path.unlink()


def challenge_as_metaimage(source: Path) -> None:
    for path in files(source):
        stored, stem = pixels(path), path.name.removesuffix(".nii.gz")
        (path.parent / f"{stem}.raw").write_bytes(stored.tobytes(order="F"))
        (path.parent / f"{stem}.mhd").write_text(
            "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
            "CompressedData = False\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\n"
            f"ElementSpacing = {SPACING[1]} {SPACING[0]} 1\n"
            f"DimSize = {stored.shape[0]} {stored.shape[1]} 1\n"
            f"ElementType = MET_UCHAR\nElementDataFile = {stem}.raw\n"
        )
        path.unlink()
    for path in source.rglob("Info_*.cfg"):
        path.write_text("ED: 1\nES: 18\nImageQuality: Good\nLVedv: 94.2\nLVesv: 43.1\nLVef: 54.2\n")
    challenge(source)


def nnunet(source: Path) -> None:
    for name in ("imagesTr", "labelsTr"):
        (source / name).mkdir()
    for path in files(source):
        stem = path.name.removesuffix(".nii.gz")
        is_mask = stem.endswith("_gt")
        folder, name = ("labelsTr", stem[:-3]) if is_mask else ("imagesTr", f"{stem}_0000")
        path.rename(source / folder / f"{name}.nii.gz")
    shutil.rmtree(source / "database_nifti")


def without_scale(source: Path) -> None:
    for path in files(source):
        nib.save(nib.Nifti1Image(pixels(path), np.eye(4)), path)


ARRANGEMENTS = [
    another_orientation,
    depth_first,
    three_gray_channels,
    masks_as_scaled_integers,
    nifti2,
    not_gzipped,
    dashes,
    upper_case_endings,
    apple_double,
    unzipped_twice,
    challenge,
    challenge_as_metaimage,
    nnunet,
    without_scale,
]
