"""The sweep on a terminal and where there is none."""

from __future__ import annotations

import io
import json
import threading
from types import SimpleNamespace

import pytest
from rich.console import Console

from heartseg.sweeps.display import MARGIN, SweepDisplay, time_left
from heartseg.tracking.trial import Trial


@pytest.fixture
def sweep(tmp_path):
    """What the display sees of a sweep of 30 trials, 60 s after its start."""
    return SimpleNamespace(
        by_number={},
        sweep=SimpleNamespace(metric="dice_mean", mode="max", hours=None),
        search=SimpleNamespace(count=30),
        seconds=lambda: 60.0,
    )


@pytest.fixture
def add(sweep, tmp_path, params):
    def add_row(number, state="running", epoch=0, value=None, reason=""):
        values = {"learning_rate": 0.0003, "batch_size": 12}
        run_dir = tmp_path / str(number)
        run_dir.mkdir(exist_ok=True)
        recipe = params.recipe("camus").model_copy(update={"epochs": 18})
        trial = Trial(number, values, run_dir, recipe, state, epoch, value, reason)
        sweep.by_number[number] = trial

    return add_row


def lines(sweep, height=20, width=100):
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True,
                      color_system=None)  # fmt: skip
    display = SweepDisplay(sweep, console)
    rows = sorted(sweep.by_number.values(), key=lambda row: row.number)
    console.print(display.table(rows, height - MARGIN))
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("height", [12, 20, 60])
def test_it_fits_and_shows_the_best_and_those_that_run(sweep, add, height):
    for number in range(28):
        add(number, "complete", 18, 0.5 + (number == 3) * 0.25)
    add(28, epoch=3, value=0.4)
    add(29)
    shown = lines(sweep, height)
    assert len(shown) <= height
    numbers = [int(line.split("trial ")[1][:2]) for line in shown if "│ trial" in line]
    room = height - MARGIN
    assert numbers == sorted({3, 28, 29, *range(28 - room + 3, 28)} & set(range(30)))
    assert "30 trials, best dice_mean 0.7500 (trial 03)" in " ".join(shown)


def test_a_row_says_state_epoch_and_value(sweep, add):
    add(0, "failed", 2, None, "out of memory: lower batch_size or input_size, or raise something")
    add(1, "pruned", 5, 0.25, "asha at epoch 5")
    add(2, epoch=3, value=0.5)
    step = {"epoch": 4, "step": 5, "steps": 10, "loss": 0.5}
    (sweep.by_number[2].run_dir / "progress.json").write_text(json.dumps(step))
    cells = [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in lines(sweep) if "│" in line
    ]
    assert cells == [
        ["trial 00 lr=0.0003 bs=12", "failed: out of memory: lower batch_size", "2/18", ""],
        ["trial 01 lr=0.0003 bs=12", "pruned", "5/18", "0.2500"],
        ["trial 02 lr=0.0003 bs=12", "running", "3.5/18", "0.5000"],
    ]


def test_the_best_follows_the_mode_and_the_pruned_are_not_among_them(sweep, add):
    sweep.sweep.mode = "min"
    add(0, "complete", 18, 0.5)
    add(1, "complete", 18, 0.25)
    add(2, "pruned", 5, 0.125)
    assert "best dice_mean 0.2500 (trial 01)" in " ".join(lines(sweep))


def test_a_narrow_terminal_keeps_a_line_per_trial(sweep, add):
    for number in range(4):
        add(number, "complete", 18, 0.5)
    assert len([line for line in lines(sweep, width=50) if "│" in line]) == 4


def test_plain_lines_come_once_per_change(sweep, add):
    console = Console(file=io.StringIO(), width=40)
    add(0, "complete", 18, 0.5)
    display = SweepDisplay(sweep, console)
    add(1)
    display._show()
    sweep.by_number[1].epoch, sweep.by_number[1].value = 1, 0.25
    display._show()
    display._show()
    sweep.by_number[1].state, sweep.by_number[1].reason = "pruned", "asha at epoch 1"
    display._show()
    display._show()
    assert console.file.getvalue().splitlines() == [
        "trial 01 lr=0.0003 bs=12  epoch 1/18  dice_mean 0.2500",
        "trial 01 lr=0.0003 bs=12  pruned (asha at epoch 1)  dice_mean 0.2500; "
        "2/30 trials, best dice_mean 0.5000 (trial 00), about 14 min left",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_the_last_state_is_shown_at_the_end(sweep, add, terminal):
    console = Console(
        file=io.StringIO(), width=100, height=20, force_terminal=terminal, color_system=None
    )
    add(0, "complete", 18, 0.5)
    before = threading.active_count()
    with SweepDisplay(sweep, console):
        add(1, "complete", 18, 0.75)
    assert "going on after 1 trials" in console.file.getvalue()
    assert "2/30 trials, best dice_mean 0.7500 (trial 01)" in console.file.getvalue()
    assert threading.active_count() == before


def test_the_time_left_of_a_scripted_sweep(sweep, add):
    """Two at a time, 2 s an epoch of both together; trials end after 18 and 6 epochs in turn."""
    assert time_left([], 30, sweep) is None
    add(0)
    assert time_left([sweep.by_number[0]], 30, sweep) is None  # nothing is known yet
    add(0, "complete", 18, 0.5)
    add(1, "pruned", 6, 0.2)
    add(2, epoch=6)
    sweep.seconds = lambda: 30.0  # 30 epochs, 1 s each
    rows = list(sweep.by_number.values())
    # 12 epochs are typical: 6 of trial 2, and 27 trials of 12.
    assert time_left(rows, 30, sweep) == pytest.approx(6 + 27 * 12)
    assert time_left(rows, 3, sweep) == pytest.approx(6)
    assert time_left(rows, None, sweep) == pytest.approx(6)
    sweep.sweep.hours = 1 / 60
    assert time_left(rows, 30, sweep) == pytest.approx(30)  # a minute in all
    sweep.seconds = lambda: 70.0
    assert time_left(rows, 30, sweep) == 0
