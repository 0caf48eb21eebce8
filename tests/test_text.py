"""Untrusted text: nothing that a terminal interprets or a spreadsheet evaluates."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from heartseg.config.params import Privacy
from heartseg.data.csv_table import read_table
from heartseg.data.privacy import CaseNames
from heartseg.data.strips.training_set import COLUMNS, _write_csv
from heartseg.prediction.tables import write_table
from heartseg.text import csv_text, escape_formula, printable, unescape_formula
from heartseg.tracking.evaluations import _table

FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-1+2", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "-p1"]
HARMLESS = ["patient0001", "-1", "+12.5", "-1e-3", "-inf", "", "a=b", "'", "'quoted'", "O'-"]
PLAIN = CaseNames(Privacy(case_ids="plain").case_ids, b"", {})


@pytest.mark.parametrize(
    ("text", "one_line", "lines"),
    [
        ("\x1b[2Jrun", "[2Jrun", "[2Jrun"),
        ("a\u202egnp.exe\u2066b\u200e\u200f\x9b", "agnp.exeb", "agnp.exeb"),
        ("a\nerror: b\tc\r\u2028\x00", "a error: b c", "a\nerror: b\tc"),
        ("\udcff\ufeff", "", ""),
        ("Größe 心 \u0645\u06cc\u200c\u062e\u0648", None, None),
    ],
)
def test_what_a_terminal_obeys_is_removed(text, one_line, lines):
    assert printable(text) == (text if one_line is None else one_line)
    assert printable(text, lines=True) == (text if lines is None else lines)
    nested = {f"key{text}": [text, 1, None, {"deep": text}], "n": 0.5}
    assert printable(nested) == {
        f"key{printable(text)}": [printable(text), 1, None, {"deep": printable(text)}],
        "n": 0.5,
    }


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula_and_every_one_comes_back(text):
    for again in (text, escape_formula(text), escape_formula(escape_formula(text))):
        assert escape_formula(again) == f"'{again}"
        assert unescape_formula(escape_formula(again)) == again


@pytest.mark.parametrize("text", HARMLESS)
def test_other_cells_stay_as_they_are(text):
    assert escape_formula(text) == text
    assert unescape_formula(text) == text


def test_numbers_stay_numbers():
    table = pd.DataFrame(
        {
            "name": ["=1", "-1", None],
            "value": [-0.5, np.nan, -np.inf],
            "count": [-1, 0, 1],
            "mixed": [-2.5, "-x", None],
        }
    )
    assert csv_text(table) == "name,value,count,mixed\n'=1,-0.5,-1,-2.5\n-1,,0,'-x\n,-inf,1,\n"
    assert csv_text(table[["value"]], float_format="%.2f").splitlines()[1] == "-0.50"


def test_written_tables_come_back_through_every_reader(tmp_path):
    """cases.csv in results, its copy for MLflow, and the table that `heartseg compare` reads."""
    names = FORMULAS + [text for text in HARMLESS if text]
    table = pd.DataFrame({"case_id": names, "patient": names, "dice": 0.5, "bias": -1.25})
    path = tmp_path / "cases.csv"
    path.write_text(csv_text(table), encoding="utf-8")
    with PLAIN.shareable([path]) as (copy,):
        assert copy.read_bytes() == path.read_bytes()
        found = _table(copy.read_bytes().decode())
    assert list(found["case_id"]) == list(found["patient"]) == names
    assert list(found["bias"]) == [-1.25] * len(names)


def test_the_names_of_windows_come_back(tmp_path):
    names = ["=1+1", "-w1", "-1", "@x", "w"]
    strip = SimpleNamespace(animal="+a", recording="=r", spacing=(0.1, 0.002))
    place = {"strip": strip, "row": 0, "column": 1, "size": 256}
    windows = [(SimpleNamespace(name=name, **place), "good") for name in names]
    _write_csv(tmp_path / "windows.csv", windows)
    cells = list(csv.reader((tmp_path / "windows.csv").open(newline="", encoding="utf-8")))
    assert [row[0] for row in cells[1:]] == ["'=1+1", "'-w1", "-1", "'@x", "w"]
    found = read_table(tmp_path / "windows.csv", ["name"], COLUMNS[1:], ignore_unknown=True)
    assert list(found["name"]) == names
    assert set(found["animal"]) == {"+a"}
    assert set(found["recording"]) == {"=r"}
    assert set(found["mm_per_row"]) == {"0.1"}


def test_file_names_in_the_tables_of_predict(tmp_path):
    write_table([{"image": "=HYPERLINK(1)", "frame": 0, "LV_mm2": -1.0}], tmp_path / "images.csv")
    assert (tmp_path / "images.csv").read_text().splitlines()[1] == "'=HYPERLINK(1),0,-1.0"
    read = pd.read_csv(io.StringIO((tmp_path / "images.csv").read_text()))
    assert read["LV_mm2"][0] == -1.0


def test_every_csv_file_is_written_in_one_place():
    """Use phantoms in place of files that other people's tools have written."""
    package = Path(__file__).parents[1] / "heartseg"
    writers = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if any(f in path.read_text("utf-8") for f in (".to_csv(", "csv.writer(", "csv.DictWriter("))
    }
    assert {name for name in writers if not name.startswith("data/phantoms/")} == {"text.py"}
