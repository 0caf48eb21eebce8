"""Tests of areas, volumes and phases of sequences with known values."""

from __future__ import annotations

import numpy as np
import pytest

from heartseg.datasets.camus import Camus
from heartseg.metrics.sequence import lv_curves, summarise_curves
from tests.metrics.shapes import FINE, heart

LENGTHS, WIDTHS = (84, 78, 72, 80), (22.0, 20.0, 18.0, 21.0)


def half_ellipse(length: float, half_width: float) -> float:
    return np.pi * length * half_width / 2


def half_ellipsoid(length: float, half_width: float) -> float:
    """Return the volume in mL of the half ellipse rotated about its axis."""
    return 2 / 3 * np.pi * length * half_width**2 / 1000


def beat() -> np.ndarray:
    return np.stack([heart(*one) for one in zip(LENGTHS, WIDTHS, strict=True)])


def test_curves_of_a_beat() -> None:
    curves = lv_curves(beat(), FINE, frame_rate=50.0)
    assert list(curves["frame"]) == [1, 2, 3, 4]
    assert list(curves["time_s"]) == pytest.approx([0, 0.02, 0.04, 0.06])
    areas = [half_ellipse(*one) / 100 for one in zip(LENGTHS, WIDTHS, strict=True)]
    volumes = [half_ellipsoid(*one) for one in zip(LENGTHS, WIDTHS, strict=True)]
    assert list(curves["lv_area_cm2"]) == pytest.approx(areas, rel=0.01)
    assert list(curves["lv_length_mm"]) == pytest.approx(LENGTHS, rel=0.01)
    assert list(curves["lv_volume_ml"]) == pytest.approx(volumes, rel=0.02)
    assert list(curves["phase"]) == ["ED", "", "ES", ""]
    assert not [name for name in curves if "reference" in name or "dice" in name]
    summary = summarise_curves(curves)
    assert (summary["frames"], summary["not_measured"]) == (4, 0)
    assert (summary["ed_frame"], summary["es_frame"]) == (1, 3)
    ef = 100 * (1 - 72 * 18**2 / (84 * 22**2))
    assert summary["ef_percent"] == pytest.approx(ef, abs=1.0)


def test_comparison_with_a_reference() -> None:
    reference = beat()
    labels = reference.copy()
    labels[1][labels[1] == Camus.LA] = Camus.BACKGROUND  # missed
    labels[3] = reference[2]
    curves = lv_curves(labels, FINE, reference=reference, numbers=[1, 5, 9, 13])
    assert list(curves["frame"]) == [1, 5, 9, 13]
    assert curves["time_s"].isna().all()  # no frame rate
    assert list(curves["dice_LA"][:3]) == [1, 0, 1]
    assert list(curves["dice_LV"][:3]) == [1, 1, 1]
    one, other = labels[3] == Camus.LV, reference[3] == Camus.LV
    dice = 2 * (one & other).sum() / (one.sum() + other.sum())
    assert curves["dice_LV"][3] == pytest.approx(dice)
    assert curves["lv_volume_ml_reference"][3] == pytest.approx(half_ellipsoid(80, 21), rel=0.02)
    summary = summarise_curves(curves)
    assert summary["dice_LV"] == pytest.approx((3 + dice) / 4)
    assert summary["ef_percent"] == summary["ef_percent_reference"]
    assert (summary["ed_frame_reference"], summary["es_frame_reference"]) == (1, 9)


def test_frames_without_a_ventricle_are_counted_and_left_out() -> None:
    labels = beat()
    labels[2] = 0  # would be end-systole
    summary = summarise_curves(lv_curves(labels, FINE))
    assert summary["not_measured"] == 1
    assert summary["es_frame"] == 2
    nothing = summarise_curves(lv_curves(np.zeros((3, 20, 20), np.uint8), FINE))
    assert nothing["not_measured"] == 3
    assert np.isnan([nothing[key] for key in ("ed_frame", "edv_ml", "esv_ml", "ef_percent")]).all()


def test_a_reference_of_another_shape_is_rejected() -> None:
    with pytest.raises(ValueError, match="reference has shape"):
        lv_curves(beat(), FINE, reference=beat()[:2])
