"""The curves' figure shows the table's values, marks and units."""

from __future__ import annotations

import numpy as np
import pytest

from heartseg.metrics.sequence import lv_curves
from heartseg.report.sequence_curves import curve_figure
from tests.metrics.shapes import FINE, heart

BEAT = np.stack([heart(84, 22), heart(78, 20), heart(72, 18)])


def lines(axes) -> dict[str, tuple[list[float], list[float]]]:
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines
    }


def test_area_and_volume_over_time_with_both_phases_marked():
    curves = lv_curves(BEAT, FINE, frame_rate=50.0)
    figure = curve_figure(curves, "patient0001")
    area, volume = figure.axes
    assert [axes.get_xlabel() for axes in figure.axes] == ["time (s)"] * 2
    assert [axes.get_ylabel() for axes in figure.axes] == ["LV area (cm²)", "LV volume (mL)"]
    drawn = lines(volume)
    assert drawn["prediction"] == ([0, 0.02, 0.04], list(curves["lv_volume_ml"]))
    assert drawn["ED of prediction"] == ([0], [curves["lv_volume_ml"][0]])
    assert drawn["ES of prediction"] == ([0.04], [curves["lv_volume_ml"][2]])
    assert lines(area)["prediction"][1] == list(curves["lv_area_cm2"])
    title = figure.get_suptitle()
    assert title.startswith("patient0001\nprediction: EDV 85 mL, ESV 49 mL, EF 43 %")
    assert "area-length" in title


@pytest.mark.slow
def test_a_reference_adds_its_curve_and_dice_per_frame():
    labels = BEAT.copy()
    labels[1] = 0  # nothing found
    curves = lv_curves(labels, FINE, reference=BEAT)
    figure = curve_figure(curves, "x")
    _, volume, dice = figure.axes
    assert dice.get_xlabel() == "frame"
    assert lines(volume)["reference"] == ([1, 2, 3], list(curves["lv_volume_ml_reference"]))
    assert lines(dice)["LV"] == ([1, 2, 3], [1, 0, 1])
    assert set(lines(dice)) == {"LV", "MYO", "LVepi", "LA"}
    assert dice.get_ylim()[0] == pytest.approx(0)  # a miss is not cut off
    assert "1 frame(s) not measured" in figure.get_suptitle()
    assert "reference: EDV 85 mL, ESV 49 mL" in figure.get_suptitle()
