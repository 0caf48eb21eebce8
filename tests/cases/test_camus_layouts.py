"""Four real CAMUS patients in several layouts give the same prepared dataset.

The inputs are made from the release that HEARTSEG_CAMUS_ROOT names.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from heartseg.config.params import Params, load_params
from heartseg.data.prepared import decode_png, read_prepared
from heartseg.errors import BadFilesError
from heartseg.prepare import prepare
from tests.cases.layouts import (
    ARRANGEMENTS,
    FIRST,
    PATIENTS,
    SPACING,
    UNLABELLED,
    challenge,
    challenge_as_metaimage,
    files,
    nnunet,
    pixels,
    without_scale,
    write_release,
)
from tests.examples import ROOT, real_data

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("camus") / "release", PATIENTS)


@pytest.fixture(scope="module")
def reference(release: Path) -> pd.DataFrame:
    return prepared(load_params(ROOT / "params.yaml"), release)[0]


@pytest.fixture
def source(release: Path, tmp_path: Path) -> Path:
    """Return a copy of the release that tests may modify."""
    return shutil.copytree(release, tmp_path / "source")


def prepared(params: Params, source: Path, **changes: object) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows by case id, and the notes."""
    config = params.datasets.camus.model_copy(update={"source": source, **changes})
    path = source.with_name("camus.parquet")
    facts = prepare("camus", config, path, skip_bad=False, threads=2)
    return read_prepared(path).set_index("case_id"), facts["notes"]


@pytest.mark.parametrize("arrange", ARRANGEMENTS)
def test_layouts_give_the_same_prepared_dataset(
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
    """A configured spacing is used, but hearts are implausibly large with 1.5 mm per pixel."""
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


def test_unknown_label_is_printed(params: Params, source: Path) -> None:
    (path, *_) = files(source, FIRST, mask=True)
    labels = pixels(path).astype(np.float32)
    labels[labels == 3] = 2.5
    nib.save(nib.Nifti1Image(labels, nib.load(path).affine), path)
    with pytest.raises(BadFilesError, match=r"2\.5"):
        prepared(params, source)


def test_patients_of_one_official_list(params: Params, source: Path) -> None:
    """Twelve real patients, or four of them, are all in the official training list."""
    shutil.copytree(real_data("HEARTSEG_CAMUS_ROOT") / "database_split", source / "database_split")
    found, notes = prepared(params, source)
    assert set(found["split"]) == {"train"}
    (note,) = [note for note in notes if "val and test are empty" in note]
    assert "method: random" in note
