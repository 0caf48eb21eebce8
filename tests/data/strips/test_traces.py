"""Conversion of traces to masks, and invalid traces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from heartseg.data.strips.traces import fill_between, mask_to_traces, read_traces
from heartseg.errors import InputError
from heartseg.metrics.overlap import mask_dice
from tests.examples import real_data

ROWS, COLUMNS = 20, 9


def read(tmp_path: Path, text: str) -> tuple[np.ndarray, np.ndarray]:
    path = tmp_path / "a_traces.csv"
    path.write_text(text)
    return read_traces(path, ROWS, COLUMNS)


def test_points_are_joined_by_straight_lines(tmp_path: Path) -> None:
    upper, lower = read(
        tmp_path,
        "trace, col, row\nlower,8,14\nupper,5,4\nupper,1,2\nlower,0,10\nupper,7,0\n",
    )
    nan = np.nan
    assert np.allclose(upper, [nan, 2, 2.5, 3, 3.5, 4, 2, 0, nan], equal_nan=True)
    assert np.allclose(lower, [nan, 10.5, 11, 11.5, 12, 12.5, 13, 13.5, nan], equal_nan=True)
    mask = fill_between(upper, lower, ROWS)
    # column 2: 2.5 to 11 holds the rows 3 .. 10; column 4: 3.5 to 12 holds 4 .. 11
    assert np.flatnonzero(mask[:, 2]).tolist() == list(range(3, 11))
    assert np.flatnonzero(mask[:, 4]).tolist() == list(range(4, 12))
    assert not mask[:, [0, 8]].any()


def test_rows_per_column_and_points_agree(tmp_path: Path) -> None:
    rows = read(tmp_path, "col,upper_row,lower_row\n0,2,9\n4,6,9\n8,2,13\n")
    points = read(
        tmp_path,
        "trace,col,row\n" + "upper,0,2\nupper,4,6\nupper,8,2\nlower,0,9\nlower,4,9\nlower,8,13\n",
    )
    for one, other in zip(rows, points, strict=True):
        assert np.array_equal(one, other)
        assert np.isfinite(one).all()


def test_empty_cells_are_not_annotated(tmp_path: Path) -> None:
    upper, lower = read(
        tmp_path, "col,upper_row,lower_row\n0,2,9\n1,2,9\n2,,9\n3,,\n4,2,9\n5,2,9\n"
    )
    known = [True, True, False, False, True, True, False, False, False]
    assert np.isfinite(upper).tolist() == known
    assert np.isfinite(lower).tolist() == known


def test_the_height_of_a_mask_is_the_distance_of_its_traces() -> None:
    rng = np.random.default_rng(0)
    upper = rng.uniform(10, 40, 20_000)
    lower = upper + rng.uniform(20, 50, 20_000)
    height = fill_between(upper, lower, 100).sum(axis=0)
    assert np.abs(height - (lower - upper)).max() < 1
    assert (height - (lower - upper)).mean() == pytest.approx(0, abs=0.01)  # no bias


def test_traces_of_mask_reproduce_it() -> None:
    rng = np.random.default_rng(1)
    upper, lower = rng.integers(0, 9, 30), rng.integers(11, 21, 30)  # 20 is the edge
    mask = fill_between(upper, lower, ROWS)
    mask[:, 7] = False
    again = mask_to_traces(mask)
    assert np.isnan(again[0][7])
    assert np.isnan(again[1][7])
    assert np.array_equal(fill_between(*again, ROWS), mask)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("col,upper_row,lower_row\n0,9,2\n", "not below the upper one in column 0"),
        (
            "col,upper_row,lower_row\n0,2,9\n9,2,9\n",
            "from 0 to 9, but the image has 9 columns",
        ),
        ("col,upper_row,lower_row\n0,2,25\n1,2,9\n", "from 9 to 25, but the image has 20 rows"),
        ("col,upper_row,lower_row\n0,2,x\n", "lower_row of row 1 below the header is 'x'"),
        ("col,upper,lower_row\n0,2,9\n", "no column 'upper'; did you mean 'upper_row'"),
        ("trace,col,row\nupper,0,2\nupper,3,2\n", "no points of the lower trace"),
        ("trace,col,row\nupper,0,2\nuper,3,2\n", "trace is 'uper'"),
        ("trace,col,row\nupper,0,2\nlower,3,9\n", "no column has both traces"),
        ("", "is empty"),
    ],
)
def test_faults_are_named(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'a_traces.csv'}: ")


def test_real_traces_give_the_real_mask() -> None:
    real = real_data("HEARTSEG_MMODE_ROOT")
    given = np.array(Image.open(real / "annotation_example_mask.png")) > 127
    traces = read_traces(real / "annotation_example_traces.csv", *given.shape)
    assert mask_dice(fill_between(*traces, len(given)), given) >= 0.998
