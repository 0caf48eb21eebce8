"""Files in several formats give the same results in `predict` and `serve`.

The inputs are made from the release that HEARTSEG_CAMUS_ROOT names, see tests/cases/layouts.py.
The model thresholds gray values. What it finds is no heart, but it is what it finds in the release.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from heartseg import predict
from heartseg.config.params import load_params
from heartseg.data.camus.names import parse_frame
from heartseg.evaluation.folder import measure_folder
from heartseg.models.package import Package, read_package
from heartseg.serving.limits import Limits
from heartseg.tracking.pulled import PulledModel
from tests.cases.dicom import write_dicom
from tests.cases.layouts import (
    FIRST,
    SPACING,
    another_orientation,
    apple_double,
    challenge_as_metaimage,
    dashes,
    depth_first,
    files,
    masks_as_scaled_integers,
    nifti2,
    nnunet,
    not_gzipped,
    pixels,
    three_gray_channels,
    unzipped_twice,
    upper_case_endings,
    without_scale,
    write_release,
)
from tests.examples import ROOT
from tests.registered import write_threshold
from tests.serving.running import Client, running

pytestmark = pytest.mark.slow

Maps = dict[tuple[str, str], np.ndarray]
"""Label maps (x, y) with the axes R, A, by view and phase."""
SHIFT = -0.5
"""Threshold that finds pixels in every image."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_threshold(tmp_path_factory.mktemp("model") / "threshold", SHIFT)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("camus") / "release", [FIRST])


@pytest.fixture(scope="module")
def reference(model: Path, release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the results of `predict` for the release."""
    return predicted(model, release, tmp_path_factory.mktemp("out") / "reference")


@pytest.fixture
def source(release: Path, tmp_path: Path) -> Path:
    """Return a copy of the release that tests may modify."""
    return shutil.copytree(release, tmp_path / "source")


def predicted(model: Path, source: Path, out: Path, *options: str) -> Path:
    predict.main([str(model), str(source), "--out", str(out), *options])
    return out


def stored(path: Path) -> nib.Nifti1Image:
    """Return pixels (x, y, ...) and the affine to R, A, S of a NIfTI or MetaImage file."""
    if path.suffix in (".mha", ".mhd"):
        image = sitk.ReadImage(str(path))
        direction = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
        affine = np.eye(4)
        affine[:3, :3] = np.diag([-1, -1, 1]) @ direction
        return nib.Nifti1Image(sitk.GetArrayFromImage(image).T, affine)
    return nib.load(path)


def as_ras(image: nib.Nifti1Image) -> np.ndarray:
    """Return the pixels (x, y) of a single frame, reoriented to the axes R, A."""
    volume = np.asarray(image.dataobj).reshape((*image.shape, 1)[:3])
    turned = nib.as_closest_canonical(nib.Nifti1Image(volume, image.affine))
    return np.asarray(turned.dataobj)[..., 0]


def label_maps(out: Path) -> Maps:
    found = {}
    for path in sorted(out.rglob("*_seg.*")):
        frame = parse_frame(path.name.partition("_seg")[0])
        assert frame is not None
        found[frame.view, frame.phase] = as_ras(stored(path))
    return found


def clinical(out: Path) -> pd.Series:
    (row,) = pd.read_csv(out / "clinical.csv").drop(columns="folder").to_dict("records")
    return pd.Series(row)


def check_same(found: Path, reference: Path) -> None:
    """Check for the same label maps, the same measurements up to rounding, and no other images."""
    maps, expected = label_maps(found), label_maps(reference)
    assert maps.keys() == expected.keys()
    for key, labels in expected.items():
        assert set(np.unique(labels)) == {0, 1}
        assert (labels != labels[::-1]).any()  # so that a flip would be noticed
        assert np.array_equal(maps[key], labels)
    images, expected_images = (pd.read_csv(one / "images.csv") for one in (found, reference))
    names = ["view", "phase"]
    pd.testing.assert_frame_equal(
        images.sort_values(names).drop(columns="image").reset_index(drop=True),
        expected_images.sort_values(names).drop(columns="image").reset_index(drop=True),
        rtol=1e-5,
    )
    row, expected_row = clinical(found), clinical(reference)
    assert row["patient"] == FIRST
    pd.testing.assert_series_equal(row, expected_row, rtol=1e-5)
    assert expected_row["edv_ml"] > 0


def other_names(source: Path) -> None:
    for arrange in (apple_double, dashes, upper_case_endings, unzipped_twice):
        arrange(source)


READ_ALIKE = [
    *(another_orientation, depth_first, three_gray_channels, nifti2, not_gzipped),
    *(challenge_as_metaimage, nnunet, other_names),
]
OWN_GRIDS = (another_orientation, depth_first, nifti2, challenge_as_metaimage)


@pytest.mark.parametrize("arrange", READ_ALIKE)
def test_predict_gives_the_same(
    model: Path, source: Path, reference: Path, arrange: Callable[[Path], None]
) -> None:
    arrange(source)
    out = predicted(model, source, source.with_name("out"))
    check_same(out, reference)
    if arrange in OWN_GRIDS:
        for path in out.rglob("*_seg.*"):
            name = path.name.partition("_seg")[0]
            (image,) = (one for one in source.rglob(f"{name}.*") if one.suffix != ".raw")
            assert stored(path).shape == stored(image).shape
            np.testing.assert_allclose(stored(path).affine, stored(image).affine)


def test_predict_without_scale_measures_nothing_in_mm(
    model: Path, source: Path, reference: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without_scale(source)
    out = predicted(model, source, source.with_name("out"))
    output = capsys.readouterr().out
    assert "1 mm per pixel" in output
    assert "--spacing" in output

    row, expected = clinical(out), clinical(reference)
    assert row["ef_percent"] == pytest.approx(expected["ef_percent"], abs=0.1)  # steps in mm
    images = pd.read_csv(out / "images.csv")
    for table in (images.columns, row.index):
        assert not [name for name in table if "_mm" in name or "_ml" in name or name == "plausible"]
    assert images["scale"].str.contains("1 mm per pixel").all()
    for path in out.rglob("*_seg.*"):  # no orientation either: as the release has them
        name = path.name.partition("_seg")[0]
        (same,) = reference.rglob(f"{name}_seg.nii.gz")
        assert np.array_equal(stored(path).dataobj, stored(same).dataobj)

    given = [str(step) for step in SPACING]
    predict.main([str(model), str(source), "--out", str(out), "--spacing", *given])
    assert clinical(out)["edv_ml"] == pytest.approx(expected["edv_ml"], rel=1e-5)


def test_test_gives_the_same(model: Path, release: Path, tmp_path: Path) -> None:
    package = read_package(model)
    threshold = PulledModel(package.load(), package.metadata)
    config = load_params(ROOT / "params.yaml").datasets.camus
    expected = measure_folder(threshold, config, release, [])
    assert len(expected) == 4 * 4
    assert any(0 < row["dice"] < 1 for row in expected)
    for arrange in (another_orientation, masks_as_scaled_integers, nnunet):
        source = shutil.copytree(release, tmp_path / arrange.__name__)
        arrange(source)
        assert measure_folder(threshold, config, source, []) == expected


# --- serve --------------------------------------------------------------------------------


class OneByOne:
    """Return a `Network` of one model in this process."""

    def __init__(self, folder: Path):
        self._predict = read_package(folder).load()

    def load(self, version: str, package: Package) -> str:
        return version

    async def segment(self, stack: np.ndarray, version: str) -> tuple[np.ndarray, int]:
        return self._predict(stack[None])[0], 1

    def ready(self) -> bool:
        return True


@pytest.fixture(scope="module")
def service(model: Path) -> Iterator[Client]:
    limits = Limits(upload_bytes=1 << 24, upload_s=120.0)
    with running(limits, network=OneByOne(model)) as client:
        yield client


def posted(service: Client, source: Path, **fields: float) -> dict[str, Any]:
    content = {path.name: path.read_bytes() for path in files(source, mask=False)}
    answer = service.predict(content, **fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("arrange", [another_orientation, nifti2, not_gzipped])
def test_serve_gives_the_same(
    service: Client, source: Path, reference: Path, arrange: Callable[[Path], None]
) -> None:
    arrange(source)
    found = posted(service, source)["clinical"]
    expected = clinical(reference)
    for name in ("edv_ml", "esv_ml", "ef_percent"):
        assert found[name] == pytest.approx(expected[name], rel=1e-5)
    path = files(source, mask=False)[0]
    saved = source.with_name("saved.nii.gz")
    saved.write_bytes(service.labels(path.name, path.read_bytes()).content)
    (same,) = reference.rglob(f"{path.name.removesuffix('.nii.gz')}_seg.nii.gz")
    assert np.array_equal(as_ras(stored(saved)), as_ras(stored(same)))


def test_serve_without_scale_measures_nothing_in_mm(
    service: Client, source: Path, reference: Path
) -> None:
    without_scale(source)
    answer, expected = posted(service, source), clinical(reference)
    assert answer["clinical"].keys() >= {"ef_percent", "edge"}
    assert not [name for name in answer["clinical"] if "_ml" in name or name == "plausible"]
    assert answer["clinical"]["ef_percent"] == pytest.approx(expected["ef_percent"], abs=0.1)
    for image in answer["images"]:
        assert image["spacing"] is None
        assert "1 mm per pixel" in image["no_scale"]
        assert image["frames"][0]["measured"] == {}
    row, column = SPACING
    given = posted(service, source, mm_per_row=row, mm_per_column=column)["clinical"]
    assert given["edv_ml"] == pytest.approx(expected["edv_ml"], rel=1e-5)


# --- DICOM --------------------------------------------------------------------------------

TOP, LEFT = 40, 50
"""Place of the ultrasound image within the picture."""


def test_predict_of_dicom_files(
    model: Path, release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files with a scale give the same results in one run, and the others no millimetres."""
    image = pixels(release / f"database_nifti/{FIRST}/{FIRST}_4CH_ED.nii.gz").T
    height, width = image.shape
    picture = np.zeros((height + 91, width + 91), np.uint8)
    picture = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
    picture[TOP : TOP + height, LEFT : LEFT + width] = image
    box = (LEFT, LEFT + width - 1, TOP, TOP + height - 1)
    to_the_end = (LEFT, picture.shape[1], TOP, picture.shape[0])
    (tmp_path / "in").mkdir()
    for name, file in {
        "reference": {"region": box},
        "sixteen_bits": {"region": box, "pixels": picture.astype("<u2")},
        "last": {"region": (LEFT, picture.shape[1] - 1, TOP, picture.shape[0] - 1)},
        "one_too_far": {"region": to_the_end},
        "mm_as_cm": {"region": box, "mm": 10 * SPACING[0]},
        "zero": {"PixelSpacing": [0, 0]},
        "negative": {"PixelSpacing": [-0.3, 0.3]},
    }.items():
        write_dicom(tmp_path / f"in/{name}.dcm", **({"pixels": picture} | file))
    out = predicted(model, tmp_path / "in", tmp_path / "out")
    output = capsys.readouterr().out

    table = pd.read_csv(out / "images.csv").set_index("image")
    labels = {
        name: np.asarray(stored(out / f"{name}_seg.nii.gz").dataobj).T for name in table.index
    }
    for name, same in (("sixteen_bits", "reference"), ("one_too_far", "last")):
        assert np.array_equal(labels[name], labels[same])
        pd.testing.assert_series_equal(table.loc[name], table.loc[same], check_names=False)
    assert table.loc["reference", "scale"] == "file"
    area = (labels["reference"][box[2] : box[3] + 1, box[0] : box[1] + 1] > 0).sum()
    assert 0 < table.loc["reference", "lv_area_mm2"] <= area * SPACING[0] ** 2 * 1.5
    in_mm = [name for name in table if "_mm" in name or "_ml" in name]
    for name, reason in (("mm_as_cm", "3.08"), ("zero", "0 x 0"), ("negative", "-0.3")):
        assert labels[name].any()
        assert table.loc[name, in_mm].isna().all()
        assert table.loc[name, "plausible"] is not True
        assert reason in table.loc[name, "scale"]
        assert f"{name}.dcm: {table.loc[name, 'scale']}" in output
    assert np.array_equal(labels["mm_as_cm"], labels["reference"])
