"""Quality labels of spans and windows, and their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from heartseg.data.strips.quality import QualityLabels, read_quality
from heartseg.errors import InputError


def read(tmp_path: Path, text: str) -> QualityLabels:
    path = tmp_path / "quality.csv"
    path.write_text(text)
    return read_quality(path)


def test_spans_become_columns(tmp_path: Path) -> None:
    labels = read(
        tmp_path,
        "recording,start_s,end_s,quality\na,0,0.6,good\na,0.4,0.5,bad\na,0.8,9,Bad\nb,0,1,bad\n",
    )
    columns = labels.columns("a", 10, 0.1)  # column c is seen at (c + 0.5) / 10 s
    assert columns is not None
    good, bad = columns
    assert np.flatnonzero(good).tolist() == [0, 1, 2, 3, 5]
    assert np.flatnonzero(bad).tolist() == [4, 8, 9]
    assert labels.columns("c", 10, 0.1) is None


def test_labels_of_windows(tmp_path: Path) -> None:
    labels = read(tmp_path, "window,quality\na_w1,good\na_w2,bad\n")
    names = ["a_w1", "a_w2", "a_w3"]
    assert [labels.label_of(name, names) for name in names] == ["good", "bad", ""]
    assert labels.label_of("b_w1", ["b_w1", "b_w2"]) is None


def test_missing_file_has_no_labels(tmp_path: Path) -> None:
    assert read_quality(tmp_path / "quality.csv") == QualityLabels()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "recording,start_s,end_s,quality\na,0,1,fair\n",
            "row 1 below the header has the .*'fair'",
        ),
        ("recording,start_s,end_s,quality\na,1,1,good\n", "no time span"),
        ("recording,start_s,end_s,quality\na,,1,good\n", "no time span"),
        ("recording,quality,window\na,good,a_w1\n", "either a recording or a window"),
        ("recording,quality,window\n,good,\n", "either a recording or a window"),
        ("recording,start_s,end_s\na,0,1\n", "no column quality"),
        ("recording,start,end_s,quality\na,0,1,good\n", "'start'; did you mean 'start_s'"),
    ],
)
def test_faults_are_named(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read(tmp_path, text)
