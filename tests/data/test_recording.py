"""Reading whole recordings, where their spacing comes from, and spans of quality."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from heartseg.config import MmodeDataset, Params
from heartseg.data.recording import bad_columns, read_recording, read_spans
from heartseg.errors import InputError


@pytest.fixture
def config(params: Params) -> MmodeDataset:
    return params.datasets.mmode


@pytest.fixture
def strip(tmp_path: Path) -> Path:
    pixels = np.arange(20 * 300, dtype=np.uint32).reshape(20, 300) % 251
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "mouse.png")
    return tmp_path / "mouse.png"


def test_spacing_of_params_then_the_table_then_the_command_line(
    strip: Path, config: MmodeDataset
) -> None:
    plain = read_recording(strip, None, None, config)
    assert plain.image.shape == (20, 300)
    assert plain.image[1, 5] == (300 + 5) % 251
    assert plain.spacing == (config.mm_per_row, config.s_per_column)
    assert plain.spacing_from == ("params.yaml", "params.yaml")
    table = strip.with_name("windows.csv")
    table.write_text("name,mm_per_row,s_per_column,lvidd_mm\nmouse,0.02,,4.1\n")
    beside = read_recording(strip, None, None, config)
    assert beside.spacing == (0.02, config.s_per_column)
    assert beside.spacing_from == ("windows.csv", "params.yaml")
    assert beside.reference == {"lvidd_mm": 4.1}
    given = read_recording(strip, 0.03, 0.001, config)
    assert given.spacing == (0.03, 0.001)
    assert given.spacing_from == ("command line", "command line")


def test_a_table_that_does_not_name_the_strip_is_noted(strip: Path, config: MmodeDataset) -> None:
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(strip.with_name("other.png"))
    strip.with_name("windows.csv").write_text("name,mm_per_row\nother,0.02\n")
    read = read_recording(strip, None, None, config)
    assert read.spacing_from[0] == "params.yaml"
    assert "has no row mouse" in read.notes[0]


def test_a_single_column_is_a_recording(tmp_path: Path, config: MmodeDataset) -> None:
    Image.fromarray(np.zeros((20, 1), np.uint8)).save(tmp_path / "one.png")
    assert read_recording(tmp_path / "one.png", 1, 1, config).image.shape == (20, 1)


def test_bad_files_are_refused(tmp_path: Path, strip: Path, config: MmodeDataset) -> None:
    (tmp_path / "broken.png").write_bytes(strip.read_bytes()[:100])
    Image.fromarray(np.zeros((20, 30), np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(np.zeros((3, 30), np.uint8)).save(tmp_path / "flat.png")
    for name, reason in {
        "absent": "does not exist",
        "broken": "cannot be read",
        "deep": "not 8 bits",
        "flat": "too few rows",
    }.items():
        with pytest.raises(InputError, match=rf"{name}\.png: .*{reason}"):
            read_recording(tmp_path / f"{name}.png", 1, 1, config)
    strip.with_name("windows.csv").write_text("name,mm_per_row\nmouse,-1\n")
    with pytest.raises(InputError, match="Give a positive number"):
        read_recording(strip, None, None, config)


def test_bad_spans_become_columns(tmp_path: Path) -> None:
    path = tmp_path / "spans.csv"
    path.write_text("start_s,end_s,quality\n0,0.1,good\n0.1,0.2,BAD\n0.25,9,bad\n")
    spans = read_spans(path, ["mouse"])
    bad = bad_columns(spans, "mouse", 300, 0.001)
    assert set(np.flatnonzero(bad)) == {*range(100, 200), *range(250, 300)}


def test_spans_belong_to_their_recording(tmp_path: Path) -> None:
    path = tmp_path / "spans.csv"
    path.write_text("name,start_s,end_s,quality\na,0,1,bad\nb.png,0,1,good\n")
    spans = read_spans(path, ["a", "b"])
    assert bad_columns(spans, "a", 10, 0.1).all()
    assert not bad_columns(spans, "b", 10, 0.1).any()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("start_s,end_s\n0,1\n", "no column quality"),
        ("start_s,end_s,quality\n1,0,bad\n", "row 1 is no span"),
        ("start_s,end_s,quality\n0,x,bad\n", "row 1 is no span"),
        ("start_s,end_s,quality\n0,1,poor\n", "'poor'"),
        ("name,start_s,end_s,quality\nz,0,1,bad\n", "names z"),
        ("start_s,end_s,quality\n0,1,bad\n", "Add a column name"),
    ],
)
def test_unusable_spans_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "spans.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=reason):
        read_spans(path, ["a", "b"] if "Add" in reason else ["a"])
