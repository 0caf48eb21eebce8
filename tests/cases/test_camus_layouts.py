"""Four real CAMUS patients as people have them on disk: each time the same prepared dataset.

The inputs are made from the release that HEARTSEG_CAMUS_ROOT names.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from heartseg.config import Params, load_params
from heartseg.data.prepared import decode_png, read_prepared
from heartseg.errors import BadFilesError
from heartseg.prepare import prepare
from tests.examples import ROOT, real_data

pytestmark = pytest.mark.slow
PATIENTS = [f"patient000{number}" for number in range(1, 5)]
FIRST = PATIENTS[0]
UNLABELLED = PATIENTS[3]
SPACING = (0.308, 0.308)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of four patients, without split lists."""
    database = real_data("HEARTSEG_CAMUS_ROOT") / "database_nifti"
    folder = tmp_path_factory.mktemp("camus") / "release"
    for patient in PATIENTS:
        shutil.copytree(database / patient, folder / "database_nifti" / patient)
    return folder


@pytest.fixture(scope="module")
def reference(release: Path) -> pd.DataFrame:
    return prepared(load_params(ROOT / "params.yaml"), release)[0]


@pytest.fixture
def source(release: Path, tmp_path: Path) -> Path:
    """A copy of the release, to be changed."""
    return shutil.copytree(release, tmp_path / "source")


def prepared(params: Params, source: Path, **changes: object) -> tuple[pd.DataFrame, list[str]]:
    """Rows by case id, and what was noted."""
    config = params.datasets.camus.model_copy(update={"source": source, **changes})
    path = source.with_name("camus.parquet")
    facts = prepare("camus", config, path, skip_bad=False, threads=2)
    return read_prepared(path).set_index("case_id"), facts["notes"]


def files(source: Path, patient: str = "*", mask: bool | None = None) -> list[Path]:
    found = sorted(source.glob(f"database_nifti/{patient}/*.nii.gz"))
    return [path for path in found if mask is None or ("_gt" in path.name) == mask]


def pixels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


# --- inputs -------------------------------------------------------------------------------


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
    for patient in PATIENTS:
        place = source / ("testing" if patient == UNLABELLED else "training") / patient
        place.parent.mkdir(exist_ok=True)
        (source / "database_nifti" / patient).rename(place)
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


@pytest.mark.parametrize("arrange", ARRANGEMENTS)
def test_the_same_prepared_dataset(
    params: Params, source: Path, reference: pd.DataFrame, arrange: Callable[[Path], None]
) -> None:
    assert len(reference) == 16
    arrange(source)
    given = {"spacing": SPACING} if arrange is without_scale else {}
    found, notes = prepared(params, source, **given)

    left_out = [UNLABELLED] if arrange in (challenge, challenge_as_metaimage) else []
    expected = reference[~reference["patient"].isin(left_out)]
    assert list(found.index) == list(expected.index)
    assert any(UNLABELLED in note for note in notes) == bool(left_out)
    for case_id, row in expected.iterrows():
        assert (decode_png(found.loc[case_id, "image"]) == decode_png(row["image"])).all()
        assert (decode_png(found.loc[case_id, "mask"]) == decode_png(row["mask"])).all()
    for column in ("spacing_row", "spacing_col"):
        assert np.allclose(found[column], expected[column], rtol=1e-6)  # so volumes and EF do too
    if arrange is challenge_as_metaimage:
        assert set(found["reference_ef"]) == {54.2}
        assert set(found["reference_edv"]) == {94.2}
    elif arrange is not nnunet:  # which has no Info_VIEW.cfg
        assert (found["reference_ef"] == expected["reference_ef"]).all()


def test_a_source_without_scale_is_refused_with_the_remedy(params: Params, source: Path) -> None:
    without_scale(source)
    with pytest.raises(BadFilesError) as caught:
        prepared(params, source)
    assert len(caught.value.problems) == 16
    assert all("datasets.camus.spacing" in problem for problem in caught.value.problems)
    assert not source.with_name("camus.parquet").exists()


def test_a_wrong_scale_is_noted(params: Params, source: Path) -> None:
    """An explicit spacing is believed, but 1.5 mm per pixel makes hearts that nobody has."""
    without_scale(source)
    _, notes = prepared(params, source, spacing=(1.5, 1.5))
    assert any(f"{FIRST}_2CH_ED" in note and "size" in note for note in notes)


def test_colours_are_refused(params: Params, source: Path) -> None:
    (path, *_) = files(source, FIRST, mask=False)
    channels = np.stack([pixels(path), pixels(path) // 2, pixels(path)], -1)
    nib.save(nib.Nifti1Image(channels, nib.load(path).affine), path)
    with pytest.raises(BadFilesError) as caught:
        prepared(params, source)
    (problem,) = caught.value.problems
    assert path.name in problem
    assert "colour" in problem


def test_a_label_that_does_not_exist_is_printed(params: Params, source: Path) -> None:
    (path, *_) = files(source, FIRST, mask=True)
    labels = pixels(path).astype(np.float32)
    labels[labels == 3] = 2.5
    nib.save(nib.Nifti1Image(labels, nib.load(path).affine), path)
    with pytest.raises(BadFilesError, match=r"2\.5"):
        prepared(params, source)


def test_patients_of_one_official_list(params: Params, source: Path) -> None:
    """Twelve real patients who are all in the official training list, or four of them."""
    shutil.copytree(real_data("HEARTSEG_CAMUS_ROOT") / "database_split", source / "database_split")
    found, notes = prepared(params, source)
    assert set(found["split"]) == {"train"}
    (note,) = [note for note in notes if "val and test are empty" in note]
    assert "method: random" in note
