"""Tests of wall traces in masks with known errors."""

from __future__ import annotations

import numpy as np

from heartseg.metrics.walls import Column, longest_runs, trace_walls
from tests.metrics.shapes import MM_PER_ROW, strip

BRIDGE = 16.0


def test_longest_runs() -> None:
    mask = np.zeros((10, 4), bool)
    mask[2:7, 0] = True
    mask[[1, 4, 5, 6, 9], 1] = True
    mask[:, 3] = True
    top, length, second = longest_runs(mask)
    np.testing.assert_array_equal(top, [2, 4, 0, 0])
    np.testing.assert_array_equal(length, [5, 3, 0, 10])
    np.testing.assert_array_equal(second, [0, 1, 0, 0])


def test_all_columns_of_a_clean_mask_are_used() -> None:
    mask = strip(500)
    walls = trace_walls(mask, MM_PER_ROW, BRIDGE)
    assert walls.fraction(Column.USED) == 1.0
    assert walls.pieces == [(0, 499)]
    np.testing.assert_allclose(walls.diameter, mask.sum(axis=0) * MM_PER_ROW)
    np.testing.assert_allclose(walls.upper, mask.argmax(axis=0) * MM_PER_ROW)


def test_a_second_component_does_not_count_even_if_it_is_thicker() -> None:
    mask = strip(500)
    clean = trace_walls(mask, MM_PER_ROW, BRIDGE)
    mask[142:195, 190:220] = True  # 53 rows where the cavity has 48 to 60
    mask[5:10, 50:400] = True
    walls = trace_walls(mask, MM_PER_ROW, BRIDGE)
    assert walls.fraction(Column.USED) == 1.0
    np.testing.assert_allclose(walls.diameter, clean.diameter)


def test_columns_with_a_fork_are_not_used() -> None:
    mask = strip(500)
    clean = trace_walls(mask, MM_PER_ROW, BRIDGE).diameter
    mask[145:195, 200:210] = True
    mask[100:195, 210] = True  # joins the two, so that both are one component
    walls = trace_walls(mask, MM_PER_ROW, BRIDGE)
    np.testing.assert_array_equal(np.flatnonzero(walls.columns), range(200, 211))
    assert (walls.columns[200:211] == Column.IMPLAUSIBLE).all()
    assert walls.pieces == [(0, 499)]  # eleven columns are interpolated
    np.testing.assert_allclose(walls.interpolated((0, 499)), clean, atol=2 * MM_PER_ROW)


def test_columns_with_large_holes_are_not_used_and_small_holes_are_filled() -> None:
    mask = strip(500)
    clean = trace_walls(mask, MM_PER_ROW, BRIDGE).diameter
    mask[98:103, 100:120] = False
    mask[80:121, 300:305] = False  # more than half of the cavity
    walls = trace_walls(mask, MM_PER_ROW, BRIDGE)
    np.testing.assert_array_equal(np.flatnonzero(walls.columns), range(300, 305))
    np.testing.assert_allclose(walls.diameter[100:120], clean[100:120])


def test_columns_where_a_wall_jumps_are_not_used() -> None:
    mask = strip(500)
    mask[100:175, 240:246] = True  # the lower wall jumps to a deeper layer
    mask[:105, 350:353] = False  # and the upper one into the cavity
    walls = trace_walls(mask, MM_PER_ROW, BRIDGE)
    np.testing.assert_array_equal(np.flatnonzero(walls.columns), [*range(240, 246), 350, 351, 352])
    assert walls.pieces == [(0, 499)]


def test_collapsed_and_cut_columns_are_not_used() -> None:
    mask = strip(500)
    mask[:, 100:104] = False
    mask[98:103, 100:104] = True  # 5 of about 80 rows
    mask[:100, 200:230] = True  # up to the image's edge
    mask[:, 300:303] = False
    walls = trace_walls(mask, MM_PER_ROW, BRIDGE)
    assert (walls.columns[100:104] == Column.IMPLAUSIBLE).all()
    assert (walls.columns[200:230] == Column.IMPLAUSIBLE).all()
    assert (walls.columns[300:303] == Column.MISSING).all()
    assert (walls.columns == Column.USED).sum() == 500 - 4 - 30 - 3
    assert walls.pieces == [(0, 199), (230, 499)]


def test_single_missing_columns_are_bridged() -> None:
    mask = strip(500)
    mask[:, ::3] = False
    walls = trace_walls(mask, MM_PER_ROW, BRIDGE)
    assert walls.pieces == [(1, 499)]
    assert walls.fraction(Column.MISSING) == 167 / 500


def test_bad_quality_is_never_bridged() -> None:
    bad = np.zeros(500, bool)
    bad[250:253] = True
    walls = trace_walls(strip(500), MM_PER_ROW, BRIDGE, bad)
    assert walls.pieces == [(0, 249), (253, 499)]
    assert (walls.columns[250:253] == Column.BAD_QUALITY).all()
    assert np.isnan(walls.diameter[250:253]).all()


def test_masks_without_a_heart_or_of_one_column() -> None:
    empty = trace_walls(np.zeros((50, 30), bool), 0.1, BRIDGE)
    assert empty.pieces == []
    assert empty.fraction(Column.MISSING) == 1.0
    one = trace_walls(strip(1), MM_PER_ROW, BRIDGE)
    assert one.pieces == [(0, 0)]
    assert one.diameter.shape == (1,)
