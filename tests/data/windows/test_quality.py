"""Windows labelled good and bad, from `heartseg windows` and from users."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from heartseg.config.data import MmodeDataset
from heartseg.config.params import Params
from heartseg.data.windows.quality import survey
from heartseg.errors import BadFilesError, InputError


def write(folder: Path, rows: str, names: tuple[str, ...]) -> None:
    (folder / "img").mkdir(parents=True)
    for name in names:
        Image.fromarray(np.full((20, 24), 7, np.uint8)).save(folder / f"img/{name}.png")
    (folder / "windows.csv").write_text("name,animal,recording,mm_per_row,quality\n" + rows)


@pytest.fixture
def config(params: Params, tmp_path: Path) -> MmodeDataset:
    return params.datasets.mmode_quality.model_copy(
        update={"source": tmp_path / "windows", "mm_per_row": 0.1}
    )


def test_labels_become_label_maps(config: MmodeDataset) -> None:
    write(config.source, "a_w1,m1,a,0.12,good\na_w2,m1,a,,\n", ("a_w1", "a_w2"))
    write(config.source / "bad", "b_w1,,b,0.13,Bad\n", ("b_w1",))
    found = survey(config)
    good, bad = (case.read() for case in found.cases)
    assert (good.case_id, good.patient, good.quality) == ("a_w1", "m1", "good")
    assert (bad.case_id, bad.patient, bad.quality) == ("b_w1", "b", "bad")  # by animal_pattern
    assert (good.mask == 0).all()
    assert (bad.mask == 1).all()
    assert bad.mask.shape == bad.image.shape == (20, 24)
    assert good.spacing == (0.12, config.s_per_column)
    assert "1 window(s) have no quality label" in found.notes[-1]


def test_faults_are_reported(config: MmodeDataset) -> None:
    with pytest.raises(InputError, match="has no folder img"):
        survey(config)
    write(config.source, "a_w1,m1,a,0.12,fair\na_w2,m2,a,,good\n", ("a_w1", "a_w2"))
    write(config.source / "bad", "a_w2,m1,b,0.03,bad\n", ("a_w2",))
    first, second = survey(config).cases
    with pytest.raises(BadFilesError) as caught:
        first.read()
    assert "'fair'. Write good or bad" in str(caught.value)
    assert "different animals: m1, m2" in str(caught.value)
    with pytest.raises(BadFilesError, match="second file of the name a_w2"):
        second.read()


def test_windows_without_any_label_are_refused(config: MmodeDataset) -> None:
    write(config.source, "a_w1,m1,a,0.02,\n", ("a_w1",))
    with pytest.raises(InputError, match="no window has a quality label"):
        survey(config)
