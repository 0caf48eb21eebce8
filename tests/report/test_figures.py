"""Figures show the numbers they are given, in the right place and unit."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from PIL import Image

from heartseg.datasets import DATASETS
from heartseg.report import figures
from heartseg.report.colours import COLOURS

pytestmark = pytest.mark.slow

NAN = float("nan")


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def extents(axes) -> dict[str, tuple[float, ...]]:
    """Left, right, top and bottom of each drawn structure, in the axes' unit."""
    found = {}
    for lines in axes.collections:
        if isinstance(lines, ContourSet):
            points = np.concatenate([path.vertices for path in lines.get_paths()])
            (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
            found[lines.get_label()] = tuple(round(float(v), 6) for v in (left, right, top, bottom))
    return found


def square_case(height: int = 40, width: int = 60):
    image = np.full((height, width), 90, np.uint8)
    labels = np.zeros((height, width), np.uint8)
    labels[8:30, 18:44] = 2  # myocardium around
    labels[10:20, 20:40] = 1  # the cavity: rows 10..19, columns 20..39
    return image, labels


def test_contours_follow_the_edges_of_pixels_in_mm():
    image, labels = square_case()
    moved = np.roll(labels, 5, axis=1)
    figure = figures.overlay_panel(image, labels, moved, "camus", "a case", (0.5, 0.25))
    plain, reference, prediction = figure.axes
    assert extents(plain) == {}
    assert extents(reference) == {
        "LV": (20 * 0.25, 40 * 0.25, 10 * 0.5, 20 * 0.5),
        "LVepi": (18 * 0.25, 44 * 0.25, 8 * 0.5, 30 * 0.5),
    }
    assert extents(prediction)["LV"] == (25 * 0.25, 45 * 0.25, 5.0, 10.0)
    assert plain.get_title("left") == "a case\nimage"
    assert [axes.get_xlabel() for axes in figure.axes] == ["mm"] * 3
    assert [axes.get_ylabel() for axes in figure.axes] == ["mm"] * 3


def test_contour_at_the_border_is_closed():
    image = np.zeros((10, 12), np.uint8)
    labels = np.ones((10, 12), np.uint8)
    figure = figures.overlay_panel(image, labels, labels, "mmode", "")
    assert extents(figure.axes[1]) == {"LV": (0, 12, 0, 10)}


def drawn_proportion(figure: Figure, axes) -> float:
    """Height over width of the axes as they come out."""
    figures.FigureCanvasAgg(figure).draw()
    box = axes.get_window_extent()
    return box.height / box.width


@pytest.mark.parametrize("spacing", [(0.5, 0.25), (0.2, 0.6)])
def test_camus_is_drawn_in_true_proportion(spacing: tuple[float, float]):
    image, labels = square_case(40, 60)
    figure = figures.overlay_panel(image, labels, labels, "camus", "", spacing)
    expected = 40 * spacing[0] / (60 * spacing[1])
    for axes in figure.axes:
        assert drawn_proportion(figure, axes) == pytest.approx(expected, rel=0.01)


def test_mmode_is_drawn_with_square_pixels_and_its_own_units():
    image, labels = square_case(40, 60)
    figure = figures.overlay_panel(image, labels % 2, labels % 2, "mmode", "", (0.115, 0.00083))
    axes = figure.axes[1]
    assert drawn_proportion(figure, axes) == pytest.approx(40 / 60, rel=0.01)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("time (s)", "depth (mm)")
    left, right, top, bottom = extents(axes)["LV"]
    assert (left, right) == pytest.approx((20 * 0.00083, 40 * 0.00083), rel=1e-3)
    assert (top, bottom) == pytest.approx((10 * 0.115, 20 * 0.115))


def test_grid_takes_cases_of_different_sizes_and_none_without_reference():
    image, labels = square_case(40, 60)
    tall = np.zeros((90, 30), np.uint8)
    figure = figures.overlay_grid(
        [image, tall], [labels, None], [labels, tall], "camus", ["first", "second"]
    )
    assert [axes.get_title("left") for axes in figure.axes[::3]] == [
        "first\nimage",
        "second\nimage",
    ]
    assert drawn_proportion(figure, figure.axes[0]) == pytest.approx(40 / 60, rel=0.01)
    assert drawn_proportion(figure, figure.axes[5]) == pytest.approx(3, rel=0.02)
    assert figure.axes[0].get_xlabel() == "px"
    assert extents(figure.axes[4]) == {}
    without = figures.overlay_grid([image], None, [labels], "camus", ["x"])
    assert [axes.get_title("left") for axes in without.axes] == ["x\nimage", "prediction"]
    assert extents(without.axes[1])["LV"] == (20, 40, 10, 20)


def test_bland_altman_by_hand():
    # Differences 1, 3, -1, 5 (one pair is incomplete): mean 2, sum of squares about it
    # 1 + 1 + 9 + 9 = 20, SD = sqrt(20 / 3) = 2.58199; limits 2 -+ 5.06070.
    reference = [10, 20, 30, 40, 50]
    measured = [11, 23, 29, 45, NAN]
    axes = figures.bland_altman(reference, measured, "EF", "%").axes[0]
    levels = [line.get_ydata()[0] for line in axes.lines]
    assert levels == pytest.approx([2, 7.06070, -3.06070], abs=1e-4)
    assert texts(axes) == ["bias\n+2.00", "+1.96 SD\n+7.06", "−1.96 SD\n−3.06"]
    points = np.ma.getdata(axes.collections[0].get_offsets())
    kept = points[np.isfinite(points).all(axis=1)]
    assert kept.tolist() == [[10.5, 1], [21.5, 3], [29.5, -1], [42.5, 5]]
    assert axes.get_title() == "EF: 4 pairs, 1 missing left out"
    assert axes.get_ylabel() == "measured − reference (points)"
    assert axes.get_xlabel().endswith("(%)")


def test_bland_altman_is_coloured_by_image_quality():
    qualities = ["Good", "Poor", "Good", "", "Poor"]
    measured = [11, 23, 29, 45, NAN]
    figure = figures.bland_altman([10, 20, 30, 40, 50], measured, "EDV", "mL", qualities)
    (axes,), (legend,) = figure.axes, figure.legends
    words = [text.get_text() for text in legend.get_texts()]
    assert words == ["Good (2)", "Poor (1)"]  # measured ones
    points = {part.get_label(): len(part.get_offsets()) for part in axes.collections}
    assert points["Good (2)"] == 2
    assert len({tuple(part.get_facecolor()[0]) for part in axes.collections}) == 3


def test_agreement_scatter_by_hand():
    # Deviations (-1.5, -.5, .5, 1.5) and (-1.25, -.25, -.25, 1.75): covariance sum 4.5,
    # squares 5 and 4.75, r = 4.5 / sqrt(23.75) = 0.92338.
    axes = figures.agreement_scatter([1, 2, 3, 4, NAN], [1, 2, 2, 4, 9], "LVIDd", "mm").axes[0]
    assert axes.get_title() == "LVIDd: r = 0.923, 4 pairs, 1 missing left out"
    line = axes.lines[0]
    assert line.get_slope() == 1
    x, y = line.get_xy1()
    assert x == y
    assert axes.get_aspect() == 1
    assert (axes.get_xlabel(), axes.get_ylabel()) == (
        "LVIDd, reference (mm)",
        "LVIDd, measured (mm)",
    )


@pytest.mark.parametrize(
    ("reference", "measured", "title", "lines"),
    [
        ([], [], "0 pairs", 0),
        ([NAN], [1], "0 pairs, 1 missing left out", 0),
        ([5], [6], "1 pairs", 1),
    ],
)
def test_too_few_pairs_draw_no_limits(tmp_path: Path, reference, measured, title, lines):
    plot = figures.bland_altman(reference, measured, "EF", "%")
    assert plot.axes[0].get_title() == f"EF: {title}"
    assert len(plot.axes[0].lines) == lines
    scatter = figures.agreement_scatter(reference, measured, "EF", "%")
    assert "r = undefined" in scatter.axes[0].get_title()
    for figure in (plot, scatter):
        figures.save(figure, tmp_path / "few.png")


def cases_table() -> pd.DataFrame:
    values = {"LV": [0.9, 0.8, 0.7], "MYO": [0.6, 0.5, 0.4], "LVepi": [0.9, NAN, 0.8]}
    values["LA"] = [0.3, 0.2, 0.1]
    rows = [(name, dice, 10 * dice, dice) for name, all_ in values.items() for dice in all_]
    return pd.DataFrame(rows, columns=["structure", "dice", "hd95_mm", "msd_mm"])


def test_box_plots_show_medians_by_structure():
    figure = figures.box_plots(cases_table(), "camus")
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels == ["Dice (0 to 1)", "HD95 (mm)", "MSD (mm)"]
    for axes, factor in zip(figure.axes, (1, 10, 1), strict=True):
        assert [t.get_text() for t in axes.get_xticklabels()] == ["LV", "MYO", "LVepi", "LA"]
        medians = [line.get_ydata()[0] for line in axes.lines[4::6]]  # two whiskers, two caps, it
        expected = [factor * v for v in (0.8, 0.5, 0.85, 0.2)]
        assert medians == pytest.approx(expected)
        assert axes.get_title() == "11 values, 1 missing left out"
    mmode = figures.box_plots(cases_table().query("structure == 'LV'"), "mmode")
    assert [axes.get_ylabel() for axes in mmode.axes] == ["Dice (0 to 1)"]
    assert mmode.axes[0].get_title() == "3 values"


def test_training_curves_show_every_series():
    history = pd.DataFrame(
        {
            "epoch": [1, 2, 3],
            "train_loss": [1.0, 0.6, 0.4],
            "val_loss": [1.1, NAN, 0.5],
            "dice_mean": [0.5, 0.6, 0.7],
            **{name: [0.6, 0.7, 0.8] for name in DATASETS["camus"].dice_metrics},
            "learning_rate": [1e-3, 2e-3, 1e-3],
            "images_per_second": [50.0, 51.0, 52.0],
        }
    )
    losses, dices, rates = figures.training_curves(history).axes
    drawn = {
        line.get_label(): (line.get_xdata().tolist(), line.get_ydata().tolist())
        for axes in (losses, dices, rates)
        for line in axes.lines
    }
    assert drawn == {
        "train": ([1, 2, 3], [1.0, 0.6, 0.4]),
        "validation": ([1, 3], [1.1, 0.5]),
        "mean": ([1, 2, 3], [0.5, 0.6, 0.7]),
        **dict.fromkeys(["LV", "MYO", "LA"], ([1, 2, 3], [0.6, 0.7, 0.8])),
        "learning rate": ([1, 2, 3], [1e-3, 2e-3, 1e-3]),
    }
    own = {line.get_label(): line.get_color() for line in dices.lines}
    assert all(own[name] == COLOURS[name] for name in ("LV", "MYO", "LA"))
    assert len(set(own.values())) == 4
    assert {axes.get_xlabel() for axes in (losses, dices, rates)} == {"epoch"}
    assert all(axes.get_ylabel() for axes in (losses, dices, rates))


def speckled_grid() -> Figure:
    random = np.random.default_rng(0)
    image, labels = square_case(256, 256)
    image = random.integers(0, 256, image.shape).astype(np.uint8)
    return figures.overlay_grid(
        [image] * 3, [labels] * 3, [labels] * 3, "camus", list("abc"), [(0.3, 0.3)] * 3
    )


@pytest.mark.slow
def test_saved_twice_is_the_same_file_and_small(tmp_path: Path):
    for make in (speckled_grid, lambda: figures.box_plots(cases_table(), "camus")):
        figures.save(make(), tmp_path / "new" / "first.png")
        figures.save(make(), tmp_path / "second.png")
        data = (tmp_path / "new" / "first.png").read_bytes()
        assert data == (tmp_path / "second.png").read_bytes()
        assert len(data) <= 300_000
        assert b"tEXt" not in data  # neither date nor software
        with Image.open(tmp_path / "second.png") as picture:
            assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_contours_keep_their_colour_in_the_file(tmp_path: Path):
    figures.save(speckled_grid(), tmp_path / "overlay.png")
    pixels = np.asarray(Image.open(tmp_path / "overlay.png").convert("RGB")).reshape(-1, 3)
    for name in ("LV", "LVepi"):
        wanted = [int(COLOURS[name][i : i + 2], 16) for i in (1, 3, 5)]
        near = (np.abs(pixels.astype(int) - wanted).max(axis=1) < 25).sum()
        assert near > 200, name


def test_threads_do_not_disturb_each_other(tmp_path: Path):
    figures.save(figures.box_plots(cases_table(), "camus"), tmp_path / "alone.png")

    def draw(name: str) -> None:
        figures.save(figures.box_plots(cases_table(), "camus"), tmp_path / name)

    threads = [threading.Thread(target=draw, args=(f"{i}.png",)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = (tmp_path / "alone.png").read_bytes()
    assert all((tmp_path / f"{i}.png").read_bytes() == alone for i in range(2))
